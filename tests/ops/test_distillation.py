"""A label and a teacher's logits through a head, against a straight-line computation in fp64."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import nn

from qtune.ops.distillation import Distillation, distilled
from qtune.ops.logits import Criterion

POSITIONS, HIDDEN, WIDE, VOCABULARY = 23, 16, 24, 50
Divergence = Literal["forward", "reverse"]
CAPPED = Criterion(scale=0.7, softcap=5.0)
CRITERIA = {
    "forward": Distillation(hard=Criterion(), teacher=Criterion(), temperature=2.0),
    "reverse": Distillation(
        hard=Criterion(), teacher=Criterion(), temperature=1.5, share=0.8, divergence="reverse"
    ),
    "soft alone": Distillation(hard=Criterion(), teacher=Criterion(), share=1.0),
    "hard alone": Distillation(hard=Criterion(), teacher=Criterion(), share=0.0),
    "capped": Distillation(
        hard=Criterion(scale=1.3, softcap=4.0, label_smoothing=0.1, z_loss=1e-2), teacher=CAPPED
    ),
}


def _draw(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _head(inputs: int, outputs: int, *, seed: int) -> nn.Linear:
    head = nn.Linear(inputs, outputs, bias=False)
    with torch.no_grad():
        head.weight.copy_(_draw(outputs, inputs, seed=seed) / inputs**0.5)
    return head.requires_grad_(requires_grad=False)


def _final(hidden: torch.Tensor, head: nn.Linear, criterion: Criterion) -> torch.Tensor:
    logits = hidden.double() @ head.weight.double().T * criterion.scale
    cap = criterion.softcap
    return logits if cap is None else cap * torch.tanh(logits / cap)


def _exact(
    student: torch.Tensor, teacher: torch.Tensor, target: torch.Tensor, criterion: Distillation
) -> torch.Tensor:
    """The sum by the book, in fp64, of both final logits."""
    hard = criterion.hard
    log_sums = student.exp().sum(1).log()
    right = log_sums - student[torch.arange(len(target)), target]
    smooth = hard.label_smoothing
    labels = (1 - smooth) * right + smooth * (log_sums - student.mean(1))
    labels = labels + hard.z_loss * log_sums**2
    both = min(student.shape[1], teacher.shape[1])
    s, t = ((each[:, :both] / criterion.temperature).exp() for each in (student, teacher))
    s, t = s / s.sum(1, keepdim=True), t / t.sum(1, keepdim=True)
    p, q = (t, s) if criterion.divergence == "forward" else (s, t)
    soft = (p * (p / q).log()).sum(1)
    a, temperature = criterion.share, criterion.temperature
    return ((1 - a) * labels + a * temperature * temperature * soft).sum()


@pytest.mark.parametrize("rows", [VOCABULARY, VOCABULARY - 6, VOCABULARY + 6])
@pytest.mark.parametrize("name", CRITERIA)
def test_value_and_gradients_are_those_of_fp64(name: str, rows: int) -> None:
    criterion = CRITERIA[name]
    hidden = _draw(POSITIONS, HIDDEN, seed=1).requires_grad_()
    theirs = _draw(POSITIONS, WIDE, seed=2)
    target = torch.arange(POSITIONS) % VOCABULARY
    head, teaching = _head(HIDDEN, VOCABULARY, seed=3), _head(WIDE, rows, seed=4)
    head.weight.requires_grad_()
    found = distilled(
        hidden, target, theirs, head, criterion, teach=teaching, chunk_size=7, divisor=5.0
    )
    (found / 5.0).backward()

    leaf = hidden.detach().double().requires_grad_()
    wide = _head(HIDDEN, VOCABULARY, seed=3).double().requires_grad_()
    student = _final(leaf, wide, criterion.hard)
    exact = _exact(student, _final(theirs, teaching, criterion.teacher), target, criterion)
    (exact / 5.0).backward()
    torch.testing.assert_close(found.detach().double(), exact.detach(), rtol=1e-5, atol=1e-6)
    pairs = ((hidden.grad, leaf.grad), (head.weight.grad, wide.weight.grad))
    for own, wanted in pairs:
        assert own is not None
        assert wanted is not None
        torch.testing.assert_close(own.double(), wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("divergence", ["forward", "reverse"])
def test_a_teacher_that_is_the_student_teaches_nothing(divergence: Divergence) -> None:
    criterion = Distillation(
        hard=CAPPED, teacher=CAPPED, share=1.0, temperature=3.0, divergence=divergence
    )
    hidden = _draw(POSITIONS, HIDDEN, seed=1).requires_grad_()
    head = _head(HIDDEN, VOCABULARY, seed=3)
    target = torch.arange(POSITIONS)
    loss = distilled(hidden, target, hidden.detach(), head, criterion, teach=head, chunk_size=7)
    loss.backward()
    assert loss.item() == 0.0
    assert hidden.grad is not None
    assert hidden.grad.abs().max() < 1e-6


@pytest.mark.parametrize("name", CRITERIA)
def test_chunked_is_whole(name: str) -> None:
    results = []
    for chunk_size in (1, 7, POSITIONS, 1000):
        hidden = _draw(POSITIONS, HIDDEN, seed=1).requires_grad_()
        loss = distilled(
            hidden,
            torch.arange(POSITIONS),
            _draw(POSITIONS, WIDE, seed=2),
            _head(HIDDEN, VOCABULARY, seed=3),
            CRITERIA[name],
            teach=_head(WIDE, VOCABULARY, seed=4),
            chunk_size=chunk_size,
        )
        loss.backward()
        results.append((loss.detach(), hidden.grad))
    for found in results[1:]:
        torch.testing.assert_close(found, results[0], rtol=1e-5, atol=1e-6)
