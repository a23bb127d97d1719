from __future__ import annotations

from typing import Any

import pytest

from qtune.errors import DataError
from qtune.plan import Steps, schedule
from tests.plan.given import recipe


def steps(rows: int, *, batch_size: int = 16, length: int = 100, **train: Any) -> Steps:
    optim = {key: train.pop(key) for key in ("warmup_ratio", "warmup_steps") if key in train}
    asked = recipe(max_length=length, train={"batch_size": batch_size, **train}, optim=optim)
    return schedule(asked, rows)


@pytest.mark.parametrize(
    ("rows", "batch", "epochs", "per_epoch", "total"),
    [
        (32, 16, 1.0, 2, 2),
        (33, 16, 1.0, 3, 3),
        (1, 16, 1.0, 1, 1),
        (100, 10, 1.1, 10, 11),
        (100, 10, 1.11, 10, 12),
        (100, 10, 0.001, 10, 1),
        (100, 10, 3.0, 10, 30),
        (95, 10, 2.5, 10, 25),
    ],
)
def test_an_epoch_is_a_whole_number_of_steps(
    rows: int, batch: int, epochs: float, per_epoch: int, total: int
) -> None:
    found = steps(rows, batch_size=batch, num_train_epochs=epochs)
    assert (found.per_epoch, found.total) == (per_epoch, total)


def test_max_steps_wins() -> None:
    assert steps(100, num_train_epochs=50.0, max_steps=3).total == 3
    assert steps(16, num_train_epochs=1.0, max_steps=40).total == 40


@pytest.mark.parametrize(
    ("total", "settings", "warmup"),
    [
        (100, {"warmup_ratio": 0.03}, 3),
        (100, {"warmup_ratio": 0.031}, 4),
        (100, {"warmup_ratio": 0.07}, 7),
        (150, {}, 5),
        (1, {"warmup_ratio": 0.03}, 1),
        (100, {"warmup_ratio": 0.0}, 0),
        (100, {"warmup_ratio": 0.5, "warmup_steps": 2}, 2),
        (100, {"warmup_steps": 0}, 0),
    ],
)
def test_warm_up_is_rounded_up_exactly(total: int, settings: dict[str, Any], warmup: int) -> None:
    assert steps(10, max_steps=total, **settings).warmup == warmup


@pytest.mark.parametrize("rows", [1, 7, 16, 33, 40])
@pytest.mark.parametrize("total", [1, 2, 3, 7, 12])
def test_tokens_are_those_of_the_rows_that_are_read(rows: int, total: int) -> None:
    read = 0
    for step in range(total):
        first = step * 8 % (-(-rows // 8) * 8)
        read += min(8, rows - first)
    assert steps(rows, batch_size=8, max_steps=total).tokens_upper == 100 * read


def test_no_rows_are_an_error_of_the_data() -> None:
    with pytest.raises(DataError, match="no training rows"):
        steps(0)
