"""A loss that has risen is told; one that only jumps about is not."""

from __future__ import annotations

import random

import pytest

from qtune.training import Best, Progress, StepEvent


def _progress(losses: list[float]) -> Progress:
    progress = Progress(best=Best("loss"))
    for step, loss in enumerate(losses, 1):
        progress.add_step(
            StepEvent(
                step=step,
                total=len(losses),
                epoch=1.0,
                loss=loss,
                grad_norm=1.0,
                learning_rate=1.0,
                tokens=1,
                supervised=1,
                computed=1,
                seconds=1.0,
            )
        )
    return progress


def test_the_two_means() -> None:
    progress = _progress([float(number) for number in range(1, 11)])
    assert progress.loss_begun == pytest.approx(5.5)
    assert progress.loss_recent == pytest.approx(5.5)
    progress = _progress([4.0] * 10 + [2.0] * 60)
    assert progress.loss_begun == pytest.approx(4.0)
    assert progress.loss_recent == pytest.approx(2.0, abs=0.01)


@pytest.mark.parametrize(
    "losses",
    [
        [2.0] * 9 + [9.0] * 200,
        [1.0] * 10 + [0.5 + 0.2 * step for step in range(40)],
        [4.7] * 10 + [2.0] * 50 + [11.5] * 25,
    ],
    ids=["a jump", "a slow rise", "learnt, then lost"],
)
def test_a_loss_far_above_its_beginning(losses: list[float]) -> None:
    assert _progress(losses).has_risen()


@pytest.mark.parametrize(
    "losses",
    [
        [9.0] * 5,
        [1.0] * 10 + [9.0],
        [2.0] * 10 + [40.0] + [2.0] * 20,
        [0.01] * 10 + [1.9] * 30,
        [6.0] * 10 + [6.9] * 90,
    ],
    ids=["too short", "too early", "one wild batch", "still low", "a little"],
)
def test_what_is_no_divergence(losses: list[float]) -> None:
    assert not _progress(losses).has_risen()


def test_batches_of_all_kinds_are_no_alarm() -> None:
    """Single rows of 0.2 to 4 nats in any order, over many runs."""
    draw = random.Random(0)
    alarms = 0
    for _ in range(300):
        progress = _progress([])
        for step in range(1, 201):
            one = _progress([draw.uniform(0.2, 4.0)]).unlogged[0]
            progress.add_step(StepEvent(**(vars(one) | {"step": step})))
            alarms += progress.has_risen()
    assert alarms == 0


def test_a_checkpoint_carries_it() -> None:
    progress = _progress([3.0, 2.0, 5.0])
    assert Progress.from_dict(progress.to_dict()) == progress
