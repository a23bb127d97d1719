"""The fused norm is the plain one, and its output is made again bit for bit."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some

from qtune.ops import rms_norm
from qtune.ops.rms_norm import PIECE, input_again, kept_input

EPS = 1e-5


def run(
    way: object, shape: tuple[int, ...], dtype: torch.dtype, exact: bool = False
) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(sum(shape))
    x, seed = (torch.randn(shape, generator=draw).bfloat16().to(dtype) for _ in range(2))
    weight = torch.randn(shape[-1], generator=draw).bfloat16().to(dtype)
    if exact:
        x, seed, weight = x.double(), seed.double(), weight.double()
    x.requires_grad_()
    made = way(x, weight, EPS)
    (gradient,) = torch.autograd.grad(made, x, seed)
    return [made.detach(), gradient]


def distance(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one.double() - other).norm() / other.double().norm())


@settings(max_examples=20, deadline=None)
@given(tokens=some.sampled_from([1, 7, PIECE // 64 + 5]), width=some.sampled_from([3, 64, 1021]))
def test_fused_is_plain(tokens: int, width: int) -> None:
    for shape in ((1, min(tokens, 300), width), (2, 3, min(tokens, 50), width)):
        plain = run(rms_norm.plain, shape, torch.float32)
        fused = run(rms_norm.fused, shape, torch.float32)
        assert torch.equal(fused[0], plain[0])
        assert distance(fused[1], plain[1]) < 1e-6


def test_more_rows_than_a_piece() -> None:
    shape = (PIECE // 64 + 5, 64)
    plain = run(rms_norm.plain, shape, torch.float32)
    fused = run(rms_norm.fused, shape, torch.float32)
    assert torch.equal(fused[0], plain[0])
    assert distance(fused[1], plain[1]) < 1e-6


def reference(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    return weight * x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt()


def test_bf16_rounds_no_worse_than_plain() -> None:
    truth = run(reference, (101, 64), torch.float32, exact=True)
    plain = run(rms_norm.plain, (101, 64), torch.bfloat16)
    fused = run(rms_norm.fused, (101, 64), torch.bfloat16)
    assert torch.equal(fused[0], plain[0])
    assert distance(fused[1], truth[1]) <= 1.05 * distance(plain[1], truth[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_its_output_is_made_again(dtype: torch.dtype) -> None:
    x = torch.randn(3, 5, 64, requires_grad=True).to(dtype)
    made = rms_norm.fused(x, torch.randn(64).to(dtype), EPS)
    kept = kept_input(made, wanted=True)
    assert kept[0] is None
    assert kept[1].data_ptr() == x.data_ptr()
    again = input_again(kept)
    assert torch.equal(again, made.reshape(-1, 64))


def test_another_input_is_kept_itself() -> None:
    x = torch.randn(3, 5, 64)
    assert input_again(kept_input(x, wanted=True)).data_ptr() == x.data_ptr()
    assert input_again(kept_input(x, wanted=False)) is None
