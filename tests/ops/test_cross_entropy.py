"""Chunked cross-entropy against a straight-line computation in fp64."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from qtune.ops.cross_entropy import chunked_cross_entropy, row_cross_entropy

POSITIONS, HIDDEN, VOCABULARY = 37, 16, 50


def _inputs() -> tuple[torch.Tensor, torch.Tensor, nn.Linear]:
    generator = torch.Generator().manual_seed(3)
    hidden = torch.randn(POSITIONS, HIDDEN, generator=generator)
    target = torch.randint(0, VOCABULARY, (POSITIONS,), generator=generator)
    head = nn.Linear(HIDDEN, VOCABULARY, bias=False)
    with torch.no_grad():
        head.weight.copy_(torch.randn(VOCABULARY, HIDDEN, generator=generator))
    return hidden, target, head


def _reference(hidden: torch.Tensor, target: torch.Tensor, head: nn.Linear) -> torch.Tensor:
    logits = hidden.double() @ head.weight.double().T
    return logits.logsumexp(1) - logits[torch.arange(POSITIONS), target]


@pytest.mark.parametrize("chunk_size", [1, 10, POSITIONS, 1000])
def test_sum_is_that_of_fp64_for_every_chunk_size(chunk_size: int) -> None:
    hidden, target, head = _inputs()
    total = chunked_cross_entropy(hidden, target, head, chunk_size=chunk_size)
    torch.testing.assert_close(total.double(), _reference(hidden, target, head).sum())


def test_gradients_are_those_of_fp64() -> None:
    hidden, target, head = _inputs()
    hidden.requires_grad_()
    chunked_cross_entropy(hidden, target, head, chunk_size=10).backward()
    exact = hidden.detach().double().requires_grad_()
    weight = head.weight.detach().double().requires_grad_()
    logits = exact @ weight.T
    (logits.logsumexp(1) - logits[torch.arange(POSITIONS), target]).sum().backward()
    torch.testing.assert_close(hidden.grad.double(), exact.grad, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(head.weight.grad.double(), weight.grad, rtol=1e-5, atol=1e-5)


def test_label_smoothing_mixes_in_the_uniform_distribution() -> None:
    hidden, target, head = _inputs()
    logits = hidden.double() @ head.weight.double().T
    uniform = (logits.logsumexp(1) - logits.mean(1)).sum()
    expected = 0.9 * _reference(hidden, target, head).sum() + 0.1 * uniform
    total = chunked_cross_entropy(hidden, target, head, chunk_size=10, label_smoothing=0.1)
    torch.testing.assert_close(total.double(), expected)


@torch.no_grad()
def test_each_position_has_its_own_loss() -> None:
    hidden, target, head = _inputs()
    losses = row_cross_entropy(hidden, target, head, chunk_size=10)
    expected = _reference(hidden, target, head)
    torch.testing.assert_close(losses.double(), expected, rtol=1e-6, atol=1e-5)


def test_no_supervised_position_is_a_loss_of_zero() -> None:
    _, _, head = _inputs()
    empty, none = torch.zeros(0, HIDDEN), torch.zeros(0, dtype=torch.long)
    assert chunked_cross_entropy(empty, none, head, chunk_size=10) == 0
    assert row_cross_entropy(empty, none, head, chunk_size=10).shape == (0,)


def test_logits_are_never_larger_than_a_chunk() -> None:
    hidden, target, head = _inputs()
    seen: list[int] = []

    def spy(part: torch.Tensor) -> torch.Tensor:
        seen.append(part.shape[0])
        return head(part)

    hidden.requires_grad_()
    chunked_cross_entropy(hidden, target, spy, chunk_size=10).backward()
    assert max(seen) == 10
    assert sum(seen) == 2 * POSITIONS  # once forward, once again in the backward pass
