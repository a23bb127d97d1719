"""The gated activation's kernels against fp64 autograd, and inside a whole adapted MLP."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from torch import Tensor

from qtune.ops import gated_mlp
from qtune.ops.element_wise import taking
from qtune.ops.triton import gated
from tests.ops.layers import adapted, differences, frozen, results
from tests.ops.triton.places import DEVICE, distance, drawn, needs_kernels

pytestmark = needs_kernels
ACTIVATIONS = sorted(gated_mlp.ACTIVATIONS)
WIDTH = 96


def by_kernels(gate: Tensor, up: Tensor, into: Tensor, activation: str) -> tuple[Tensor, ...]:
    """act(gate) * up, and the gradients of gate and up."""
    made = gated.forward(gate, up, activation)
    into, inner = into.clone(), made.clone()
    gated.backward_in_place(into, inner, gate, up, activation)
    return made, into, inner


def by_autograd(gate: Tensor, up: Tensor, into: Tensor, activation: str) -> tuple[Tensor, ...]:
    gate, up = gate.detach().requires_grad_(), up.detach().requires_grad_()
    made = gated_mlp.ACTIVATIONS[activation].forward(gate) * up
    return made.detach(), *torch.autograd.grad(made, [gate, up], into)


@settings(max_examples=20, deadline=None)
@given(
    tokens=some.integers(1, 12),
    width=some.integers(1, 2500),
    scale=some.sampled_from([0.01, 1.0, 6.0]),
    activation=some.sampled_from(ACTIVATIONS),
)
def test_kernels_are_the_definition(tokens: int, width: int, scale: float, activation: str) -> None:
    parts = [drawn(tokens, width, seed=seed) for seed in range(3)]
    parts[0] *= scale
    exact = by_autograd(*(part.double() for part in parts), activation)
    for found, wanted in zip(by_kernels(*parts, activation), exact, strict=True):
        assert distance(found, wanted) < 1e-6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_16_bits_round_no_worse_than_plain(dtype: torch.dtype, activation: str) -> None:
    parts = [drawn(5, 1300, dtype=dtype, seed=seed) for seed in range(3)]
    exact = by_autograd(*(part.double() for part in parts), activation)
    plain = by_autograd(*parts, activation)
    for found, other, wanted in zip(by_kernels(*parts, activation), plain, exact, strict=True):
        assert distance(found, wanted) <= 1.001 * distance(other, wanted)


def test_halves_of_one_product() -> None:
    both, into = drawn(7, 2 * 130), drawn(7, 130, seed=1)
    gate, up = both.chunk(2, dim=-1)
    exact = by_autograd(gate.double(), up.double(), into.double(), "silu")
    for found, wanted in zip(by_kernels(gate, up, into, "silu"), exact, strict=True):
        assert distance(found, wanted) < 1e-6


def test_no_token() -> None:
    nothing = drawn(0, 64)
    assert by_kernels(nothing, nothing, nothing, "silu")[0].shape == (0, 64)


@pytest.mark.parametrize("joined", [False, True], ids=["apart", "joined"])
@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_whole_block(joined: bool, recompute: bool, activation: str) -> None:
    gate, up, down = (
        adapted(frozen("dense", *shape, dtype=torch.float32, bias=True)).to(DEVICE)
        for shape in ((64, 2 * WIDTH if joined else WIDTH), (64, WIDTH), (WIDTH, 64))
    )
    layers = [gate, down] if joined else [gate, up, down]
    mlp = gated_mlp.Mlp(gate, None if joined else up, down, activation)
    x = drawn(2, 9, 64)
    wanted = results(lambda x: [gated_mlp.plain(x, mlp)], x, layers)
    with taking({"gated"}):
        found = results(lambda x: [gated_mlp.fused(x, mlp, recompute=recompute)], x, layers)
    assert max(differences(found, wanted)) < 2e-6
