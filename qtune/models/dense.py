"""A quantised model made dense in place, with its weights edited: the model that a merge gives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch
from torch import nn

from qtune.ops.linears import linear_modules
from qtune.ops.nf4 import is_quantized, weight_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor


class Edit(Protocol):
    """A change of one parameter: dense fp32 in, dense fp32 out, on the CPU, where the tensors of an
    adapter file are."""

    @property
    def needs_base(self) -> bool:
        """Whether `apply` must be given the base's tensor."""
        ...

    @property
    def optional(self) -> bool:
        """Whether it is left out where the base has no such parameter."""
        ...

    @property
    def apply(self) -> Callable[[Tensor | None], Tensor]:
        """The change."""
        ...


def dense_bytes(model: nn.Module, dtype: torch.dtype) -> int:
    """Bytes that the quantised linears take when they are dense."""
    return sum(
        weights(module) * dtype.itemsize
        for module in linear_modules(model).values()
        if is_quantized(module)
    )


def weights(module: nn.Module) -> int:
    """Elements of a linear's weight, however it is held."""
    assert isinstance(module, nn.Linear)
    return module.in_features * module.out_features


def make_dense(
    model: nn.Module,
    edits: Mapping[str, Edit],
    *,
    dtype: torch.dtype,
    fan_in_fan_out: bool = False,
) -> None:
    """Put a plain linear for each quantised or edited one, and apply the edits of everything else.

    With `fan_in_fan_out` the edits of weights take and give [in, out].
    """
    left = dict(edits)
    for name, module in linear_modules(model).items():
        weight, bias = left.pop(f"{name}.weight", None), left.pop(f"{name}.bias", None)
        if weight is not None or bias is not None or is_quantized(module):
            parent, _, child = name.rpartition(".")
            plain = _dense(module, weight, bias, dtype=dtype, turned=fan_in_fan_out)
            setattr(model.get_submodule(parent), child, plain)
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, edit in left.items():
            if edit.optional and name not in parameters:
                continue
            before = parameters[name].float().cpu() if edit.needs_base else None
            parameters[name].copy_(edit.apply(before))


def _dense(
    module: nn.Module, weight: Edit | None, bias: Edit | None, *, dtype: torch.dtype, turned: bool
) -> nn.Linear:
    dense, old = weight_of(module), getattr(module, "bias", None)
    dtype = dtype if is_quantized(module) else dense.dtype
    if weight is not None:
        given = dense.t() if turned else dense
        before = given.float().cpu() if weight.needs_base else None
        changed = weight.apply(before).to(dense.device)
        dense = changed.t() if turned else changed
    if bias is not None and not (bias.optional and old is None):
        before = None if old is None else old.detach().float().cpu()
        old = bias.apply(before).to(dense.device)
    made = nn.Linear(1, 1, bias=False, device="meta")
    made.out_features, made.in_features = dense.shape
    made.weight = nn.Parameter(dense.to(dtype).contiguous(), requires_grad=False)
    if old is not None:
        made.bias = nn.Parameter(old.detach().to(dtype), requires_grad=False)
    return made.eval()
