"""What a teacher wrote of its most likely tokens, against the formula in fp64."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import pytest
import torch

from qtune.ops.distillation import Distillation
from qtune.ops.logits import Criterion
from qtune.ops.top_distillation import LEAST, TopDistillation, most_likely

POSITIONS, VOCABULARY = 9, 40
Divergence = Literal["forward", "reverse"]
HARD = Criterion(scale=1.3, softcap=4.0, label_smoothing=0.1, z_loss=1e-2)
TARGET = torch.arange(POSITIONS) % VOCABULARY


def _draw(seed: int, width: int = VOCABULARY) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(POSITIONS, width, generator=generator)


def _criterion(divergence: Divergence, share: float = 1.0) -> TopDistillation:
    return TopDistillation(
        hard=HARD, width=VOCABULARY, temperature=1.5, share=share, divergence=divergence
    )


@pytest.mark.parametrize("divergence", ["forward", "reverse"])
@pytest.mark.parametrize("top", [1, 7, VOCABULARY - 1])
def test_the_rest_counts_as_one_token(divergence: Divergence, top: int) -> None:
    student, teacher = _draw(1), _draw(2)
    ids, logs = most_likely(teacher, top, temperature=1.5)
    found = _criterion(divergence).losses(student, TARGET, ids, logs)
    p = (teacher.double() / 1.5).softmax(1)
    final = 4.0 * torch.tanh(student.double() * 1.3 / 4.0)
    q = (final / 1.5).softmax(1)
    for row in range(POSITIONS):
        chosen = p[row].argsort(descending=True)[:top]
        of, against = ([*each[row][chosen], 1 - each[row][chosen].sum()] for each in (p, q))
        if divergence == "reverse":
            of, against = against, of
        wanted = sum(a * (a / b).log() for a, b in zip(of, against, strict=True))
        assert found[row].item() == pytest.approx(1.5**2 * float(wanted), rel=1e-4)


@pytest.mark.parametrize("divergence", ["forward", "reverse"])
@pytest.mark.parametrize("filled", [0, 6])
def test_all_tokens_are_the_teacher_itself(divergence: Divergence, filled: int) -> None:
    student, teacher = _draw(1, VOCABULARY + filled), _draw(2)
    whole = Distillation(
        hard=HARD, teacher=Criterion(), temperature=1.5, share=0.7, divergence=divergence
    )
    lessons = most_likely(teacher, 1000, temperature=1.5)
    found = _criterion(divergence, 0.7).losses_and_gradient(student, TARGET, *lessons, factor=0.3)
    wanted = whole.losses_and_gradient(student, TARGET, teacher, factor=0.3)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("divergence", ["forward", "reverse"])
def test_fewer_tokens_tell_no_more(divergence: Divergence) -> None:
    student, teacher = _draw(1), _draw(2)
    losses = []
    for top in (1, 4, 16, VOCABULARY):
        lessons = most_likely(teacher, top, temperature=1.5)
        losses.append(_criterion(divergence).losses(student, TARGET, *lessons))
    for fewer, more in pairwise(losses):
        assert (fewer <= more + 1e-5).all()


def test_the_gradient_is_finite_where_nothing_is_left() -> None:
    teacher = _draw(2)
    teacher[:, 0] += 1000  # all the others underflow
    ids, logs = most_likely(teacher, 3, temperature=1.5)
    assert logs.min() >= LEAST
    for divergence in ("forward", "reverse"):
        criterion = _criterion(divergence)
        for student in (_draw(1), teacher):
            losses, gradient = criterion.losses_and_gradient(
                student, TARGET, ids.to(torch.int32), logs.half(), factor=1.0
            )
            assert losses.isfinite().all()
            assert gradient.isfinite().all()


def test_few_digits_change_little() -> None:
    student, (ids, logs) = _draw(1), most_likely(_draw(2), 8, temperature=1.5)
    exact = _criterion("forward").losses(student, TARGET, ids, logs)
    rounded = _criterion("forward").losses(student, TARGET, ids, logs.half())
    torch.testing.assert_close(rounded, exact, rtol=2e-3, atol=1e-4)
