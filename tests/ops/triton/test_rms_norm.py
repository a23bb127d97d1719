"""The norm's kernels are the norm's definition, forward and backward, at any shape."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from torch import Tensor

from qtune.ops import rms_norm
from qtune.ops.element_wise import taking
from tests.ops.triton.places import distance, drawn, needs_kernels

pytestmark = needs_kernels
EPS = 1e-5


def run(way: object, x: Tensor, weight: Tensor, seed: Tensor) -> list[Tensor]:
    x = x.detach().requires_grad_()
    with taking({"rms_norm"}):
        made = way(x, weight, EPS)
        (gradient,) = torch.autograd.grad(made, x, seed)
    return [made.detach(), gradient]


def inputs(dtype: torch.dtype, *shape: int) -> tuple[Tensor, Tensor, Tensor]:
    return (
        drawn(*shape, dtype=dtype),
        drawn(shape[-1], dtype=dtype, seed=1),
        drawn(*shape, dtype=dtype, seed=2),
    )


@settings(max_examples=15, deadline=None)
@given(tokens=some.integers(1, 40), width=some.integers(2, 1100))
def test_kernels_are_plain(tokens: int, width: int) -> None:
    given = inputs(torch.float32, 1, tokens, width)
    for found, wanted in zip(run(rms_norm.fused, *given), run(rms_norm.plain, *given), strict=True):
        assert distance(found, wanted) < 1e-6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(1, 1, 64), (2, 31, 100), (3, 4097)])
def test_16_bits_round_no_worse_than_plain(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    given = inputs(dtype, *shape)
    found, plain = run(rms_norm.fused, *given), run(rms_norm.plain, *given)
    x, weight, seed = (tensor.double() for tensor in given)
    x.requires_grad_()
    truth = weight * x / (x.pow(2).mean(-1, keepdim=True) + EPS).sqrt()
    (gradient,) = torch.autograd.grad(truth, x, seed)
    assert distance(found[0], plain[0]) < 1e-3  # a tie here and there
    assert distance(found[1], gradient) <= 1.05 * distance(plain[1], gradient)


def test_rows_of_a_larger_tensor() -> None:
    wide, weight, seed = inputs(torch.float32, 9, 128)
    x, seed = wide[:, 32:96], seed[:, 64:]
    weight = weight[:64]
    found, wanted = (run(way, x, weight, seed) for way in (rms_norm.fused, rms_norm.plain))
    for one, other in zip(found, wanted, strict=True):
        assert distance(one, other) < 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_output_is_made_again_bit_for_bit(dtype: torch.dtype) -> None:
    x, weight, _ = inputs(dtype, 7, 96)
    with taking({"rms_norm"}):
        made = rms_norm.fused(x, weight, EPS)
        again = rms_norm.input_again(rms_norm.kept_input(made, wanted=True))
    assert torch.equal(made, again)


def test_no_rows() -> None:
    for one in run(rms_norm.fused, *inputs(torch.float32, 0, 64)):
        assert one.shape == (0, 64)
