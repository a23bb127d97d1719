"""The rotation's kernel is its definition, forward and backward, at any shape and layout."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from torch import Tensor

from qtune.ops import rotary
from qtune.ops.element_wise import taking
from tests.ops.triton.places import distance, drawn, needs_kernels

pytestmark = needs_kernels


def inputs(
    batch: int, tokens: int, heads: tuple[int, int], size: int, width: int, dtype: torch.dtype
) -> list[Tensor]:
    """q, k, cos, sin and what flows back, q and k as views of what projections give."""
    shapes = [(batch, tokens, count, size) for count in heads]
    query, key = (drawn(*shape, dtype=dtype).transpose(1, 2) for shape in shapes)
    cos, sin = (drawn(batch, tokens, width, dtype=dtype, seed=seed) for seed in (1, 2))
    seeds = [drawn(*shape, dtype=dtype, seed=3).transpose(1, 2) for shape in shapes]
    return [query, key, cos, sin, *seeds]


def run(way: object, given: list[Tensor]) -> list[Tensor]:
    query, key = (each.detach().requires_grad_() for each in given[:2])
    with taking({"rotary"}):
        made = way(query, key, *given[2:4])
        into = torch.autograd.grad(made, [query, key], given[4:])
    return [each.detach() for each in (*made, *into)]


@settings(max_examples=12, deadline=None)
@given(
    batch=some.integers(1, 2),
    tokens=some.integers(1, 9),
    heads=some.sampled_from([(1, 1), (4, 2), (5, 1), (3, 3)]),
    half=some.integers(1, 40),
    rest=some.integers(0, 9),
)
def test_kernels_are_plain(
    batch: int, tokens: int, heads: tuple[int, int], half: int, rest: int
) -> None:
    given = inputs(batch, tokens, heads, 2 * half + rest, 2 * half, torch.float32)
    found, wanted = run(rotary.fused, given), run(rotary.plain, given)
    for one, other in zip(found, wanted, strict=True):
        assert one.shape == other.shape
        assert distance(one, other) < 1e-6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bits_round_no_worse_than_plain(dtype: torch.dtype) -> None:
    given = inputs(2, 11, (4, 2), 24, 24, dtype)
    found, plain = run(rotary.fused, given), run(rotary.plain, given)
    exact = run(rotary.plain, [each.double() for each in given])
    for one, other, truth in zip(found, plain, exact, strict=True):
        assert one.dtype == dtype
        assert distance(one, truth) <= 1.01 * distance(other, truth)


def test_one_row_of_angles_for_a_whole_batch() -> None:
    given = inputs(3, 7, (4, 2), 16, 16, torch.float32)
    given[2], given[3] = given[2][:1], given[3][:1]
    for one, other in zip(run(rotary.fused, given), run(rotary.plain, given), strict=True):
        assert distance(one, other) < 1e-6


def test_other_layouts() -> None:
    given = inputs(2, 7, (4, 2), 16, 16, torch.float32)
    given[0], given[4] = given[0].contiguous(), given[4].contiguous()
    given[1] = given[1].transpose(-1, -2).contiguous().transpose(-1, -2)
    given[5] = given[5][:, :1].expand(-1, 2, -1, -1)
    for one, other in zip(run(rotary.fused, given), run(rotary.plain, given), strict=True):
        assert distance(one, other) < 1e-6
