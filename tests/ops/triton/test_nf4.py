"""The unfolding kernel gives bitsandbytes' bits, for every kind of state."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from torch import Tensor

from qtune.ops import nf4
from qtune.ops.element_wise import taking
from tests.ops.triton.places import DEVICE, drawn, needs_kernels

pytestmark = needs_kernels
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def both(packed: Tensor, state: Any) -> tuple[Tensor, Tensor]:
    """By the kernel, and by bitsandbytes."""
    with taking({"nf4"}):
        found = nf4.dequantize(packed, state)
    return found, nf4.library().functional.dequantize_4bit(packed, state)


def quantized(*shape: int, dtype: torch.dtype, **kind: Any) -> tuple[Tensor, Any]:
    packed, state = nf4.quantize(drawn(*shape, dtype=dtype), **kind)
    state.dtype = dtype
    return packed, state


def straight(packed: Tensor, state: Any) -> Tensor:
    """code * constant, one operator after the other."""
    functional, flat = nf4.library().functional, packed.flatten()
    constants = state.absmax
    if state.nested:
        constants = functional.dequantize_blockwise(constants, state.state2) + state.offset
    codes = torch.stack([flat >> 4, flat & 15], dim=1).flatten().long()
    count = state.shape.numel()
    scaled = state.code[codes[:count]] * constants.repeat_interleave(state.blocksize)[:count]
    return scaled.to(state.dtype).view(state.shape)


@settings(max_examples=25, deadline=None)
@given(
    rows=some.integers(1, 70),
    columns=some.integers(1, 130),
    dtype=some.sampled_from(DTYPES),
    double_quant=some.booleans(),
    quant_type=some.sampled_from(["nf4", "fp4"]),
    block_size=some.sampled_from([64, 128, 512]),
)
def test_any_shape_and_state(
    rows: int,
    columns: int,
    dtype: torch.dtype,
    double_quant: bool,
    quant_type: str,
    block_size: int,
) -> None:
    packed, state = quantized(
        rows,
        columns,
        dtype=dtype,
        quant_type=quant_type,
        double_quant=double_quant,
        block_size=block_size,
    )
    with taking({"nf4"}):
        found = nf4.dequantize(packed, state)
    assert found.dtype == dtype
    assert torch.equal(found, straight(packed, state))


@pytest.mark.parametrize("quant_type", ["nf4", "fp4"])
@pytest.mark.parametrize("double_quant", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_bits_of_bitsandbytes(quant_type: str, double_quant: bool, dtype: torch.dtype) -> None:
    # on a CPU it unfolds rows that end inside of a block otherwise than they were quantised
    for rows, columns in ((1, 64), (3, 128), (37, 192)):
        found, wanted = both(
            *quantized(rows, columns, dtype=dtype, quant_type=quant_type, double_quant=double_quant)
        )
        assert found.dtype == wanted.dtype
        assert torch.equal(found, wanted)


@pytest.mark.parametrize("dtype", DTYPES)
def test_more_blocks_than_one_nested_constant_covers(dtype: torch.dtype) -> None:
    packed, state = quantized(192, 256, dtype=dtype, quant_type="nf4", double_quant=True)
    assert state.state2.absmax.numel() > 1
    found, wanted = both(packed, state)
    assert torch.equal(found, wanted)


def test_codes_that_are_stored_as_another_type() -> None:
    packed, state = quantized(64, 128, dtype=torch.bfloat16, quant_type="nf4", double_quant=True)
    with taking({"nf4"}):
        found = nf4.dequantize(packed.view(1, -1).view(torch.bfloat16).view(-1, 1), state)
    assert torch.equal(found, straight(packed, state))


def test_a_layer_multiplies_with_it() -> None:
    layers = nf4.library().nn
    layer = layers.Linear4bit(128, 96, bias=False, compute_dtype=torch.bfloat16, quant_type="nf4")
    layer.weight.data = drawn(96, 128).cpu()
    layer = layer.to(DEVICE)
    with taking({"nf4"}):
        found = nf4.weight_of(layer)
    assert torch.equal(found, nf4.weight_of(layer))
