"""Fused projections are the plain ones: outputs and all gradients, over bases and shapes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some

from qtune.methods.lora_linear import DoraLinear, LoraLinear
from qtune.ops import lora_linear
from qtune.ops.low_rank import ROWS
from tests.ops.layers import KINDS, adapted, differences, exact, frozen, results

if TYPE_CHECKING:
    from torch import nn

INPUTS = 64
WIDTHS = (64, 32, 96)
FORMS = {"lora": LoraLinear, "dora": DoraLinear}


def siblings(
    kind: str,
    form: str,
    *,
    dtype: torch.dtype,
    bias: bool = False,
    adapters: torch.dtype = torch.float32,
    dropout: float = 0.0,
) -> list[Any]:
    bases = [frozen(kind, INPUTS, n, dtype=dtype, bias=bias) for n in WIDTHS]
    return [adapted(base, form=FORMS[form], dtype=adapters, dropout=dropout) for base in bases]


@settings(max_examples=40, deadline=None)
@given(
    kind=some.sampled_from(KINDS),
    form=some.sampled_from(sorted(FORMS)),
    shape=some.sampled_from([(1, 1), (1, 7), (3, 13), (1, 2 * ROWS["cpu"] + 3)]),
    dropout=some.sampled_from([0.0, 0.3]),
    bias=some.booleans(),
    bare=some.sets(some.integers(0, 2)),
)
@pytest.mark.filterwarnings("ignore:MatMul8bitLt")
def test_fused_is_plain(
    kind: str, form: str, shape: tuple[int, int], dropout: float, bias: bool, bare: set[int]
) -> None:
    layers = siblings(kind, form, dtype=torch.float32, bias=bias, dropout=dropout)
    layers = [layer.base if i in bare else layer for i, layer in enumerate(layers)]
    x = torch.randn(*shape, INPUTS, generator=torch.Generator().manual_seed(shape[1]))
    plain = results(lambda x: lora_linear.plain(x, layers), x, layers)
    fused = results(lambda x: lora_linear.fused(x, layers), x, layers)
    assert max(differences(fused, plain)) < 1e-6


@pytest.mark.parametrize("adapters", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("form", FORMS)
def test_bf16_rounds_no_worse_than_plain(form: str, adapters: torch.dtype) -> None:
    layers = siblings("nf4", form, dtype=torch.bfloat16, bias=True, adapters=adapters)
    x = torch.randn(1, 521, INPUTS).bfloat16()
    truth = results(
        lambda x: lora_linear.plain(x, doubles), x.double(), doubles := [exact(a) for a in layers]
    )
    plain = differences(results(lambda x: lora_linear.plain(x, layers), x, layers), truth)
    fused = differences(results(lambda x: lora_linear.fused(x, layers), x, layers), truth)
    assert all(ours <= 1.1 * theirs + 1e-7 for ours, theirs in zip(fused, plain, strict=True))


def test_switched_off_adapters_leave_the_base() -> None:
    layers = siblings("nf4", "lora", dtype=torch.float32, dropout=0.5)
    layers[0].enabled = False
    x = torch.randn(5, INPUTS, requires_grad=True)
    outputs = lora_linear.fused(x, layers)
    assert torch.equal(outputs[0], layers[0].base(x))
    assert not torch.equal(outputs[1], layers[1].base(x))


def test_evaluation_drops_nothing() -> None:
    layers = [layer.eval() for layer in siblings("dense", "lora", dtype=torch.float32, dropout=0.5)]
    x = torch.randn(5, INPUTS)
    for found, layer in zip(lora_linear.fused(x, layers), layers, strict=True):
        assert torch.allclose(found, layer(x), atol=1e-6)


def _kept(x: torch.Tensor, layers: list[nn.Module]) -> int:
    """Bytes that autograd holds after a fused forward pass, each memory once."""
    sizes: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        lora_linear.fused(x, layers)
    return sum(sizes.values())


def test_it_keeps_the_input_and_a_few_columns() -> None:
    layers = siblings("nf4", "lora", dtype=torch.bfloat16)
    x = torch.randn(100, INPUTS).bfloat16().requires_grad_()
    assert _kept(x, layers) == 100 * (2 * INPUTS + 3 * 4 * 4)
    for layer in layers:
        layer.down.requires_grad_(False)  # as LoRA-FA does
    assert _kept(x, layers) == 100 * 3 * 4 * 4


def test_dropout_keeps_a_byte_for_each_input_and_adapter() -> None:
    layers = siblings("nf4", "lora", dtype=torch.bfloat16, dropout=0.5)
    x = torch.randn(100, INPUTS).bfloat16().requires_grad_()
    assert _kept(x, layers) == 100 * (2 * INPUTS + 3 * 4 * 4 + 3 * INPUTS)


def test_an_input_without_gradient_gets_none() -> None:
    layers = siblings("nf4", "lora", dtype=torch.float32)
    sum(output.sum() for output in lora_linear.fused(torch.randn(5, INPUTS), layers)).backward()
    assert all(layer.down.grad is not None for layer in layers)
