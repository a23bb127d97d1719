"""down(act(gate(x)) * up(x)), SwiGLU and GeGLU, as one node.

`plain` is the definition. `fused` keeps x, gate(x) and up(x) and makes the activation again; with
`recompute` it keeps x alone and makes gate(x) and up(x) again, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.nn import functional

from qtune.ops.element_wise import by_triton
from qtune.ops.low_rank import Gradients, Kept, back, enter, leave
from qtune.ops.projection import Projection, adapter_tensors, projection_of
from qtune.ops.rms_norm import input_again, kept_input

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn


class Activation(NamedTuple):
    """An element-wise function and its gradient's: backward(gradient, input)."""

    forward: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor, Tensor], Tensor]


def _gelu(approximate: str) -> Activation:
    return Activation(
        lambda x: functional.gelu(x, approximate=approximate),
        lambda gradient, x: torch.ops.aten.gelu_backward(gradient, x, approximate=approximate),
    )


ACTIVATIONS = {
    "silu": Activation(functional.silu, lambda g, x: torch.ops.aten.silu_backward(g, x)),
    "gelu": _gelu("none"),
    "gelu_tanh": _gelu("tanh"),
}


class Mlp(NamedTuple):
    """The three linears, and the activation by its name in `ACTIVATIONS`.

    Without `up` the outputs of `gate` are those of both, side by side.
    """

    gate: nn.Module
    up: nn.Module | None
    down: nn.Module
    activation: str


def plain(x: Tensor, mlp: Mlp) -> Tensor:
    """[..., H] -> [..., H]."""
    gate, up = mlp.gate(x), None if mlp.up is None else mlp.up(x)
    if up is None:
        gate, up = gate.chunk(2, dim=-1)
    return mlp.down(ACTIVATIONS[mlp.activation].forward(gate) * up)  # type: ignore[no-any-return]


def fused(x: Tensor, mlp: Mlp, *, recompute: bool = False) -> Tensor:
    """As `plain`, in one node of the graph."""
    layers = (mlp.gate, mlp.up, mlp.down)
    projections = tuple(projection_of(layer) for layer in layers if layer is not None)
    kept_x = kept_input(x, wanted=True)
    settings = _Settings(projections, mlp.activation, recompute, kept_x)
    return _GatedMlp.apply(x, settings, *adapter_tensors(projections))  # type: ignore[no-any-return, no-untyped-call]


class _Settings(NamedTuple):
    projections: tuple[Projection, ...]
    activation: str
    recompute: bool
    kept_x: tuple[Tensor | None, ...]


class _GatedMlp(torch.autograd.Function):
    """Legend: T tokens, H hidden, F MLP width."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, settings: _Settings, *_: Tensor | None) -> Tensor:
        (*wide, narrow), activation, recompute, kept_x = settings
        x_TH = x.reshape(-1, x.shape[-1])
        entered = enter(x_TH, wide)
        gate_TF, up_TF = _apart(leave(x_TH, wide, entered))
        inner_TF = _inner(gate_TF, up_TF, activation)
        inside = enter(inner_TF, [narrow])
        (output_TH,) = leave(inner_TF, [narrow], inside)
        if recompute:
            entered.products = [None] * len(wide)
        ctx.settings, ctx.shape = settings._replace(kept_x=()), x.shape
        ctx.save_for_backward(
            *kept_x,
            *((None, None) if recompute else (gate_TF, up_TF)),
            *entered.tensors(),
            *inside.tensors(),
        )
        return output_TH.view(*x.shape[:-1], output_TH.shape[-1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        (*wide, narrow), activation, recompute, _ = ctx.settings
        *kept_x, gate_TF, up_TF = (saved := ctx.saved_tensors)[:6]
        kept, x_TH = saved[6:], input_again(kept_x)
        assert x_TH is not None
        entered, inside = Kept.of(kept[:-3]), Kept.of(kept[-3:])
        if recompute:
            gate_TF, up_TF = _apart(leave(x_TH, wide, entered))
        into, of_narrow = _inner_back(
            gradient.reshape(-1, gradient.shape[-1]), (gate_TF, up_TF), activation, narrow, inside
        )
        into = into if len(wide) > 1 else [torch.cat(into, dim=-1)]
        into_TH, of_wide = back(into, x_TH, wide, entered, input_wanted=ctx.needs_input_grad[0])
        into_x = None if into_TH is None else into_TH.view(ctx.shape)
        return into_x, None, *(tensor for found in (*of_wide, *of_narrow) for tensor in found)


def _inner(gate_TF: Tensor, up_TF: Tensor, activation: str) -> Tensor:
    """act(gate) * up."""
    if by_triton("gated", gate_TF):
        from qtune.ops.triton import gated as kernels

        return kernels.forward(gate_TF, up_TF, activation)
    return ACTIVATIONS[activation].forward(gate_TF).mul_(up_TF)


def _inner_back(
    gradient_TH: Tensor,
    outputs: tuple[Tensor, Tensor],
    activation: str,
    narrow: Projection,
    inside: Kept,
) -> tuple[list[Tensor], list[Gradients]]:
    """Gradients of gate and up [T, F], and of the adapter behind them."""
    gate_TF, up_TF = outputs
    if by_triton("gated", gate_TF):
        from qtune.ops.triton import gated as kernels

        inner_TF = kernels.forward(gate_TF, up_TF, activation)
        into_TF, found = back([gradient_TH], inner_TF, [narrow], inside, input_wanted=True)
        assert into_TF is not None
        kernels.backward_in_place(into_TF, inner_TF, gate_TF, up_TF, activation)
        return [into_TF, inner_TF], found
    function = ACTIVATIONS[activation]
    acted_TF = function.forward(gate_TF)
    into_TF, found = back([gradient_TH], acted_TF * up_TF, [narrow], inside, input_wanted=True)
    assert into_TF is not None
    into_up_TF = acted_TF.mul_(into_TF)
    return [function.backward(into_TF.mul_(up_TF), gate_TF), into_up_TF], found


def _apart(outputs: list[Tensor]) -> list[Tensor]:
    """gate(x) and up(x) of two linears, or of one that has both."""
    return outputs if len(outputs) > 1 else list(outputs[0].chunk(2, dim=-1))
