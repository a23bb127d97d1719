"""What a finished run's numbers say against it."""

from __future__ import annotations

import pytest

from qtune.run.doubts import doubts
from qtune.training import Best, Progress


def _progress(**held_out: float) -> Progress:
    progress = Progress(best=Best("loss"), step=30, loss_begun=3.0, loss_recent=2.0)
    progress.evaluations = [
        {"step": int(name.removeprefix("step")), "loss": loss} for name, loss in held_out.items()
    ]
    return progress


@pytest.mark.parametrize(
    ("held_out", "said"),
    [
        ({"step0": 3.0, "step30": 3.1}, 1),
        ({"step0": 3.0, "step20": 3.1, "step30": 2.0}, 0),
        ({"step0": 3.0, "step20": 2.0, "step30": 3.1}, 1),
        ({"step0": 3.0, "step30": 3.01}, 0),
        ({"step30": 9.0}, 0),
        ({}, 0),
    ],
)
def test_an_adapter_that_is_worse_than_none(held_out: dict[str, float], said: int) -> None:
    found = doubts(_progress(**held_out), 30, {})
    assert len(found) == said
    assert all("3.1000" in line and "3.0000" in line for line in found)


def test_a_loss_that_has_risen() -> None:
    progress = _progress()
    progress.loss_recent = 9.0
    [line] = doubts(progress, 30, {})
    assert "3.0000" in line
    assert "9.0000" in line


@pytest.mark.parametrize(
    ("learnt", "deduplicated", "held_out", "said"),
    [(3, False, True, 1), (3, True, True, 0), (0, False, True, 0), (3, False, False, 0)],
)
def test_held_out_rows_that_were_learnt_prove_nothing(
    learnt: int, deduplicated: bool, held_out: bool, said: int
) -> None:
    progress = _progress(**({"step0": 3.0, "step30": 2.0} if held_out else {}))
    data = {"training_rows_in_eval": learnt, "deduplicated": deduplicated}
    found = doubts(progress, 30, data)
    assert len(found) == said
    assert all("3 training rows are among them" in line for line in found)
