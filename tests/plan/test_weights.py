"""Bytes of the frozen base, against real quantised tensors and the published totals."""

from __future__ import annotations

from math import ceil
from typing import Any

import pytest
import torch

from qtune.errors import UsageError
from qtune.ops.nf4 import quantize
from qtune.plan import LinearShape, shape_of
from qtune.plan.weights import (
    Holding,
    constant_bytes,
    dequantized_bytes,
    holding_of,
    leftover_bytes,
    weight_bytes,
)
from qtune.recipe.inputs import QuantizationSection
from tests.plan.given import LLAMA_8B, LLAMA_65B, LLAMA_70B, QWEN_32B, TINY


def holding(**changes: Any) -> Holding:
    return holding_of(QuantizationSection(**changes), shape_of(TINY))


@pytest.mark.parametrize("double_quant", [True, False])
@pytest.mark.parametrize("size", [(64, 64), (172, 64), (48, 20), (3, 7), (512, 130)])
def test_bytes_are_those_of_bitsandbytes(size: tuple[int, int], double_quant: bool) -> None:
    linear = LinearShape("x", size[1], size[0])
    packed, state = quantize(torch.randn(size), quant_type="nf4", double_quant=double_quant)
    held = holding(double_quant=double_quant)
    assert weight_bytes(linear, held) == packed.nbytes
    constants = [state.absmax]
    if double_quant:
        constants += [state.state2.absmax, state.offset]
    assert constant_bytes(linear, held) == sum(each.nbytes for each in constants)


@pytest.mark.parametrize(
    ("config", "billions", "nf4", "rest"),
    [
        (LLAMA_65B, 64.76, 33.41, 1.05),
        (LLAMA_70B, 68.45, 35.31, 4.20),
        (QWEN_32B, 31.21, 16.10, 3.11),
        (LLAMA_8B, 6.98, 3.60, 2.10),
    ],
)
def test_published_shapes_give_the_known_bytes(
    config: dict[str, Any], billions: float, nf4: float, rest: float
) -> None:
    shape, held = shape_of(config), holding()
    both = sum(weight_bytes(each, held) + constant_bytes(each, held) for each in shape.linears)
    assert shape.linear_parameters / 1e9 == pytest.approx(billions, abs=0.006)
    assert both / 1e9 == pytest.approx(nf4, abs=0.006)
    assert 8 * both / shape.linear_parameters == pytest.approx(4.127, abs=0.0005)
    assert leftover_bytes(shape, held) / 1e9 == pytest.approx(rest, abs=0.01)


def test_without_double_quantisation_a_weight_takes_four_and_a_half_bits() -> None:
    linear = LinearShape("x", 4096, 4096)
    held = holding(double_quant=False)
    assert 8 * (weight_bytes(linear, held) + constant_bytes(linear, held)) == 4.5 * 4096 * 4096


def test_int8_takes_a_byte_and_a_maximum_a_row() -> None:
    linear, held = LinearShape("x", 100, 30), holding(bits=8)
    assert (weight_bytes(linear, held), constant_bytes(linear, held)) == (3000, 120)


@pytest.mark.parametrize(("dtype", "each"), [("bfloat16", 2), ("float32", 4)])
def test_unquantised_parts_take_the_compute_dtype(dtype: str, each: int) -> None:
    held = holding(bits=16, compute_dtype=dtype)
    linear = LinearShape("x", 100, 30, bias=True)
    assert (weight_bytes(linear, held), constant_bytes(linear, held)) == (3000 * each, 0)
    # embeddings, head, five norms; the layers have no biases
    assert leftover_bytes(shape_of(TINY), held) == each * (2 * 320 * 64 + 5 * 64)
    tied = shape_of({**TINY, "tie_word_embeddings": True, "attention_bias": True})
    assert leftover_bytes(tied, held) == each * (320 * 64 + 5 * 64 + 2 * (64 + 32 + 32 + 64))


def test_skipped_modules_stay_dense() -> None:
    shape = shape_of(TINY)
    held = holding(skip_modules=("down_proj", "model.layers.0.self_attn.q_proj"))
    dense = [linear.name for linear in shape.linears if not held.quantizes(linear)]
    assert dense == [
        "model.layers.0.self_attn.q_proj",
        "model.layers.0.mlp.down_proj",
        "model.layers.1.mlp.down_proj",
    ]


def test_a_skipped_module_that_is_not_there_is_an_error() -> None:
    with pytest.raises(UsageError, match="no linear module is named 'down_prj'") as caught:
        holding(skip_modules=("down_prj",))
    assert "down_proj" in caught.value.faults[0].hint


def test_a_quantised_checkpoint_stays_as_it_is() -> None:
    stored = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    shape = shape_of({**TINY, "quantization_config": stored})
    held = holding_of(QuantizationSection(bits=8), shape)
    assert (held.bits, held.already) == (8, True)
    with pytest.raises(UsageError, match="already quantised with 8, the recipe says 4") as caught:
        holding_of(QuantizationSection(bits=4), shape)
    assert caught.value.faults[0].place == "quantization.bits"


def test_the_largest_weight_is_unfolded() -> None:
    shape = shape_of(LLAMA_65B)
    assert dequantized_bytes(shape, holding()) == 2 * 8192 * 22016
    assert dequantized_bytes(shape, holding(bits=16)) == 0
    assert ceil(dequantized_bytes(shape, holding(compute_dtype="float32")) / 4) == 8192 * 22016
