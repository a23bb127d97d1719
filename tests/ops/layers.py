"""Adapted layers of every kind for the tests of the fused ops, and what they are compared by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from qtune.methods.lora_linear import LoraLinear
from qtune.ops.nf4 import library, weight_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

KINDS = ("dense", "nf4", "int8")


def frozen(kind: str, inputs: int, outputs: int, *, dtype: torch.dtype, bias: bool) -> nn.Module:
    """A frozen linear layer, drawn from its shape."""
    torch.manual_seed(inputs + 3 * outputs)
    made: Any = nn.Linear(inputs, outputs, bias=bias)
    if kind != "dense":
        layers = library().nn
        quantised = (
            layers.Linear4bit(inputs, outputs, bias=bias, compute_dtype=dtype, quant_type="nf4")
            if kind == "nf4"
            else layers.Linear8bitLt(inputs, outputs, bias=bias, has_fp16_weights=False)
        )
        quantised.load_state_dict(made.state_dict())
        quantised.support_avx512bf16_for_cpu = False
        made = quantised.to("cpu")
        if kind == "nf4":
            made.weight.quant_state.dtype = dtype
        if bias:
            made.bias.data = made.bias.data.to(dtype)
    else:
        made = made.to(dtype)
    return made.requires_grad_(False)  # type: ignore[no-any-return]


def adapted(base: nn.Module, *, form: type[LoraLinear] = LoraLinear, **changes: Any) -> LoraLinear:
    """An adapter of rank 4 on a layer, away from its start."""
    given = {"rank": 4, "scale": 0.7, "dropout": 0.0, "dtype": torch.float32, **changes}
    outputs, _ = weight_of(base).shape
    generator = torch.Generator().manual_seed(outputs)
    layer = form(base, **given, generator=generator)
    with torch.no_grad():
        for parameter in layer.tensors().values():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return layer


def exact(layer: LoraLinear) -> LoraLinear:
    """The same function in fp64 on a dense base: what rounding is measured against."""
    outputs, inputs = weight_of(layer.base).shape
    base = nn.Linear(inputs, outputs, bias=layer.bias is not None).double()
    base.weight.data = weight_of(layer.base).double()
    if layer.bias is not None:
        base.bias.data = layer.bias.double()
    form = type(layer)
    made = form(
        base.requires_grad_(False),
        rank=len(layer.down),
        scale=layer.scale,
        dropout=0.0,
        dtype=torch.float64,
        generator=torch.Generator(),
    )
    with torch.no_grad():
        for name, parameter in made.tensors().items():
            parameter.copy_(layer.tensors()[name])
    return made


def results(
    function: Callable[[Tensor], Sequence[Tensor]], x: Tensor, layers: Sequence[nn.Module]
) -> list[Tensor]:
    """Outputs, and gradients of the input and all that trains, of a fixed sum; in fp64."""
    x = x.clone().requires_grad_()
    trained = [p for layer in layers for p in layer.parameters() if p.requires_grad]
    torch.manual_seed(11)
    outputs = function(x)
    draw = torch.Generator().manual_seed(12)
    loss = sum(
        (y.double() * torch.randn(y.shape, generator=draw).to(y.device)).sum() for y in outputs
    )
    gradients = torch.autograd.grad(loss, [x, *trained])
    return [tensor.detach().double() for tensor in (*outputs, *gradients)]


def differences(found: Sequence[Tensor], expected: Sequence[Tensor]) -> list[float]:
    """Relative difference of each pair in the 2-norm."""
    return [
        float((one - other).norm() / other.norm().clamp_min(1e-30))
        for one, other in zip(found, expected, strict=True)
    ]
