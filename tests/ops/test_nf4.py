"""The 4-bit and 8-bit codes against straight-line references."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from qtune.ops import nf4
from tests.round_trip import round_trip

# Dettmers et al. 2023, appendix E: quantiles of N(0, 1) with an exact zero, scaled to [-1, 1].
NF4_NEGATIVE = [-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453]
NF4_NEGATIVE += [-0.28444138169288635, -0.18477343022823334, -0.09105003625154495]
NF4_POSITIVE = [0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224]
NF4_POSITIVE += [0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0]
NF4_CODE = torch.tensor([*NF4_NEGATIVE, 0.0, *NF4_POSITIVE])


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def reference_nf4(weight: Tensor, block: int = 64) -> tuple[Tensor, Tensor, Tensor]:
    """(dense, nearest code indices, block maxima), a value at a time."""
    dense, codes, maxima = [], [], []
    flat = weight.reshape(-1)
    for start in range(0, flat.numel(), block):
        values = flat[start : start + block].float()
        largest = values.abs().max()
        nearest = (values[:, None] / largest - NF4_CODE[None, :]).abs().argmin(dim=1)
        dense.append(NF4_CODE[nearest] * largest)
        codes.append(nearest)
        maxima.append(largest)
    return torch.cat(dense).reshape(weight.shape), torch.cat(codes), torch.stack(maxima)


def error(found: Tensor, wanted: Tensor) -> float:
    return ((found - wanted).norm() / wanted.norm()).item()


def test_nf4_equals_the_straight_line_code() -> None:
    weight = gaussian(96, 128)
    packed, state = nf4.quantize(weight, quant_type="nf4", double_quant=False)
    dense, codes, maxima = reference_nf4(weight)
    assert torch.equal(packed.flatten(), (codes[::2] * 16 + codes[1::2]).to(torch.uint8))
    assert torch.equal(state.absmax, maxima)
    assert torch.equal(nf4.dequantize(packed, state), dense)


def test_double_quantisation_is_the_sum_of_its_parts() -> None:
    weight = gaussian(256, 256)
    packed, state = nf4.quantize(weight, quant_type="nf4", double_quant=True)
    _, codes, maxima = reference_nf4(weight)
    nested = state.state2
    blocks = torch.arange(len(maxima)) // 256
    constants = nested.code[state.absmax.long()] * nested.absmax[blocks] + maxima.mean()
    assert error(constants, maxima) < 0.01
    parts = NF4_CODE[codes].reshape(-1, 64) * constants[:, None]
    assert torch.allclose(nf4.dequantize(packed, state), parts.reshape(256, 256), atol=1e-6)


@pytest.mark.parametrize(
    ("double_quant", "bits"), [(True, 4 + 8 / 64 + 32 / (64 * 256)), (False, 4.5)]
)
def test_bits_per_parameter(double_quant: bool, bits: float) -> None:
    weight = gaussian(1024, 512)
    packed, state = nf4.quantize(weight, quant_type="nf4", double_quant=double_quant)
    parts = [packed, state.absmax] + ([state.state2.absmax] if double_quant else [])
    assert sum(p.numel() * p.element_size() for p in parts) * 8 / weight.numel() == bits
    assert not double_quant or round(bits, 3) == 4.127


@pytest.mark.parametrize(
    ("bits", "quant_type", "expected"), [(4, "nf4", 0.092), (4, "fp4", 0.125), (8, "nf4", 0.0076)]
)
def test_relative_error_on_gaussian_weights(bits: int, quant_type: str, expected: float) -> None:
    weight = gaussian(512, 512)
    dense = round_trip(weight, bits=bits, quant_type=quant_type, double_quant=True)
    assert error(dense, weight) == pytest.approx(expected, rel=0.1)


def test_quantising_what_was_dequantised_changes_nothing() -> None:
    kind = {"bits": 4, "quant_type": "nf4"}
    once = round_trip(gaussian(128, 192), **kind, double_quant=False)
    assert torch.equal(round_trip(once, **kind, double_quant=False), once)
    once = round_trip(gaussian(128, 192), **kind, double_quant=True)
    assert error(round_trip(once, **kind, double_quant=True), once) < 1e-3


@pytest.mark.parametrize("shape", [(172, 64), (64, 172), (100, 36), (33, 35)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sizes_that_are_no_multiple_of_the_block(
    shape: tuple[int, int], dtype: torch.dtype
) -> None:
    weight = gaussian(*shape).to(dtype)
    dense = round_trip(weight, bits=4, quant_type="nf4", double_quant=False)
    assert dense.dtype == dtype
    wanted = reference_nf4(weight)[0].to(dtype)
    # A tie between two codes may fall either way when 1/absmax is rounded first.
    assert (dense != wanted).float().mean() < 0.001
    assert error(dense.float(), wanted.float()) < 0.01


@pytest.mark.parametrize("quant_type", ["nf4", "fp4"])
@pytest.mark.parametrize("double_quant", [True, False])
def test_pieces_equal_the_whole(
    quant_type: str, double_quant: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    functional = nf4.library().functional
    weight = gaussian(40, 1000)
    wanted, wanted_state = functional.quantize_4bit(
        weight.bfloat16(), blocksize=64, compress_statistics=double_quant, quant_type=quant_type
    )
    monkeypatch.setattr(nf4, "PIECE", 4096)
    packed, state = nf4.quantize(
        weight, quant_type=quant_type, double_quant=double_quant, dtype=torch.bfloat16
    )
    assert torch.equal(packed, wanted)
    assert state == wanted_state
    assert state.dtype == torch.bfloat16
    assert torch.equal(
        nf4.dequantize(packed, state), functional.dequantize_4bit(wanted, wanted_state)
    )


def test_int8_is_row_maxima_over_127() -> None:
    weight = gaussian(48, 80)
    codes, maxima = nf4.quantize_int8(weight)
    half = weight.half().float()
    assert torch.equal(maxima, half.abs().amax(dim=1))
    assert torch.equal(codes.float(), (half * (127.0 / maxima[:, None])).round())
    dense = nf4.dequantize_int8(codes, maxima, dtype=torch.float32)
    assert torch.allclose(dense, codes * maxima[:, None] / 127)


def test_compute_dtype_rounds_before_quantising() -> None:
    weight = gaussian(64, 64)
    kind = {"quant_type": "nf4", "double_quant": True}
    for bits in (4, 8, 16):
        cast = round_trip(weight.bfloat16(), bits=bits, **kind)
        found = round_trip(weight, bits=bits, **kind, compute_dtype=torch.bfloat16)
        assert found.dtype == torch.float32
        assert torch.equal(found, cast.float())
    assert torch.equal(round_trip(weight, bits=16, **kind), weight)


def four_bit(weight: Tensor) -> nn.Module:
    layers = nf4.library().nn
    layer = layers.Linear4bit(*reversed(weight.shape), bias=False, quant_type="nf4", device="meta")
    packed, state = nf4.quantize(weight, quant_type="nf4", double_quant=True)
    layer.weight = layers.Params4bit(packed, quant_state=state, module=layer, bnb_quantized=True)
    return layer


def test_weight_of_every_kind_of_layer() -> None:
    from transformers.pytorch_utils import Conv1D

    weight = gaussian(64, 96)
    plain = nn.Linear(96, 64)
    plain.weight.data = weight
    assert torch.equal(nf4.weight_of(plain), weight)
    conv = Conv1D(64, 96)
    conv.weight.data = weight.t().contiguous()
    assert torch.equal(nf4.weight_of(conv), weight)
    expected = round_trip(weight, bits=4, quant_type="nf4", double_quant=True)
    layer = four_bit(weight)
    assert torch.equal(nf4.weight_of(layer), expected)
    assert [nf4.is_quantized(module) for module in (plain, conv, layer)] == [False, False, True]


def test_weight_of_an_8_bit_layer_before_and_after_its_first_forward() -> None:
    weight = gaussian(64, 96)
    layers = nf4.library().nn
    layer = layers.Linear8bitLt(96, 64, bias=False, has_fp16_weights=False, device="meta")
    codes, maxima = nf4.quantize_int8(weight)
    layer.weight = layers.Int8Params(codes, requires_grad=False, CB=codes, SCB=maxima)
    expected = round_trip(weight, bits=8, quant_type="nf4", double_quant=True)
    assert torch.equal(nf4.weight_of(layer), expected)
    layer(gaussian(3, 96))
    assert layer.weight.CB is None
    assert torch.equal(nf4.weight_of(layer), expected)
    assert nf4.bits_of(layer) == 8


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_the_first_non_finite_element_is_found(
    broken: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nf4, "PIECE", 256)
    weight = gaussian(50, 30).bfloat16()
    assert nf4.first_non_finite(weight) is None
    weight[20, 7] = broken
    weight[40, 1] = math.nan
    assert nf4.first_non_finite(weight) == 607


def test_values_whose_sum_overflows_are_still_finite() -> None:
    assert nf4.first_non_finite(torch.full((8, 8), 3e38)) is None


@pytest.mark.gpu
@pytest.mark.parametrize("double_quant", [True, False])
def test_a_gpu_quantises_as_a_cpu_does(double_quant: bool) -> None:
    weight = gaussian(512, 256)
    kind = {"bits": 4, "quant_type": "nf4", "double_quant": double_quant}
    there = round_trip(weight.cuda(), **kind).cpu()
    here = round_trip(weight, **kind)
    assert error(there, here) < 2e-3
    assert error(there, weight) == pytest.approx(0.092, rel=0.1)
