"""Losses and gradients of logits by the kernel, against fp64 and against torch's form."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from torch import Tensor, nn

from qtune.ops.cross_entropy import fused_cross_entropy, row_cross_entropy
from qtune.ops.element_wise import taking
from qtune.ops.logits import Criterion
from tests.ops.test_cross_entropy import CRITERIA
from tests.ops.triton.places import DEVICE, distance, drawn, needs_kernels

pytestmark = needs_kernels
FACTOR = 1 / 37


def targets(count: int, vocabulary: int) -> Tensor:
    draw = torch.Generator().manual_seed(count + vocabulary)
    return torch.randint(vocabulary, (count,), generator=draw).to(DEVICE)


def exact(raw: Tensor, target: Tensor, criterion: Criterion) -> tuple[Tensor, Tensor]:
    """Losses, and FACTOR times the gradient of their sum, in fp64."""
    raw = raw.double().requires_grad_()
    logits = raw * criterion.scale
    if criterion.softcap is not None:
        logits = criterion.softcap * torch.tanh(logits / criterion.softcap)
    sums = logits.logsumexp(1)
    right = sums - logits.gather(1, target[:, None])[:, 0]
    smoothing = criterion.label_smoothing
    losses = (1 - smoothing) * right + smoothing * (sums - logits.mean(1))
    losses = losses + criterion.z_loss * sums**2
    (gradient,) = torch.autograd.grad(losses.sum() * FACTOR, raw)
    return losses.detach(), gradient


def by_kernel(raw: Tensor, target: Tensor, criterion: Criterion) -> tuple[Tensor, Tensor]:
    with taking({"cross_entropy"}):
        return criterion.losses_and_gradient(raw.clone(), target, factor=FACTOR)


@settings(max_examples=12, deadline=None)
@given(
    count=some.integers(1, 12),
    vocabulary=some.integers(1, 5000),
    name=some.sampled_from(sorted(CRITERIA)),
    size=some.sampled_from([0.05, 3.0]),
)
def test_any_shape_and_criterion(count: int, vocabulary: int, name: str, size: float) -> None:
    raw, target = size * drawn(count, vocabulary), targets(count, vocabulary)
    found = by_kernel(raw, target, CRITERIA[name])
    wanted = exact(raw, target, CRITERIA[name])
    torch.testing.assert_close(found[0].double(), wanted[0], rtol=1e-6, atol=2e-6)
    torch.testing.assert_close(found[1].double(), wanted[1], rtol=2e-6, atol=2e-8)


@pytest.mark.parametrize("name", CRITERIA)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bits_round_no_worse_than_torch(name: str, dtype: torch.dtype) -> None:
    raw, target = drawn(9, 1500, dtype=dtype), targets(9, 1500)
    found = by_kernel(raw, target, CRITERIA[name])
    plain = CRITERIA[name].losses_and_gradient(raw, target, factor=FACTOR)
    wanted = exact(raw, target, CRITERIA[name])
    assert found[1].dtype == dtype
    for one, other, truth in zip(found, plain, wanted, strict=True):
        assert distance(one, truth) <= 1.01 * distance(other, truth) + 1e-7


@pytest.mark.parametrize("name", CRITERIA)
def test_a_line_of_many_blocks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qtune.ops.triton.cross_entropy.BLOCK", 32)
    raw, target = 4 * drawn(5, 333), targets(5, 333)
    found, wanted = (way(raw, target, CRITERIA[name]) for way in (by_kernel, exact))
    for one, truth in zip(found, wanted, strict=True):
        assert distance(one, truth) < 1e-6


def test_the_gradient_takes_the_place_of_the_logits() -> None:
    raw, target = drawn(3, 70), targets(3, 70)
    with taking({"cross_entropy"}):
        _, gradient = Criterion().losses_and_gradient(raw, target, factor=1.0)
    assert gradient.data_ptr() == raw.data_ptr()


def test_who_kept_the_logits_is_told() -> None:
    leaf, target = drawn(3, 70).requires_grad_(), targets(3, 70)
    raw = torch.tanh(leaf)  # its backward pass reads its output
    with taking({"cross_entropy"}):
        _, gradient = Criterion().losses_and_gradient(raw.detach(), target, factor=1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(raw, leaf, gradient)


def test_a_logit_that_is_no_number_is_no_loss() -> None:
    raw, target = drawn(2, 70), targets(2, 70)
    raw[0, 5] = float("nan")
    losses, _ = by_kernel(raw, target, Criterion())
    assert losses[0].isnan()
    assert losses[1].isfinite()


@pytest.mark.parametrize("trained", [False, True], ids=["frozen", "trained"])
@pytest.mark.parametrize("name", ["plain", "all"])
def test_through_a_head(name: str, trained: bool) -> None:
    head = nn.Linear(16, 50, bias=False).to(DEVICE).requires_grad_(trained)
    target, found = targets(21, 50), []
    for families in (set(), {"cross_entropy"}):
        head.weight.grad = None
        hidden = drawn(21, 16).requires_grad_()
        with taking(families):
            total = fused_cross_entropy(hidden, target, head, CRITERIA[name], chunk_size=8)
            (total / 3).backward()
            losses = row_cross_entropy(hidden.detach(), target, head, CRITERIA[name], chunk_size=8)
        trained_by = head.weight.grad.clone() if trained else losses
        found.append((total.detach(), hidden.grad, losses.detach(), trained_by))
    for one, other in zip(*found, strict=True):
        assert distance(one, other) < 1e-6
