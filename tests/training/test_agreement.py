"""What one process wishes between two steps, all of them do; and weights that part are found."""

from __future__ import annotations

import signal
from typing import Any

import pytest
import torch

from qtune.errors import DivergedError, ExitCode
from qtune.ranks import ALONE, Ranks, Seat
from qtune.training import Agreement, Standing, StopRequest, check_same

QUIET = [0.0, 0.0, 0.0, 0.0, 5.0, 0.25, 2.0]


class Heard(Ranks):
    """A process that hears what the test says the other one does."""

    def __init__(self, other: Any) -> None:
        super().__init__(Seat(0, 2))
        self.other = other

    def table(self, numbers: Any) -> list[Any]:
        """Our numbers and the other's."""
        return [list(numbers), self.other]

    def everyones(self, value: Any) -> list[Any]:
        """Our value and the other's."""
        return [value, self.other]


def _agreement(ranks: Ranks, stop: StopRequest | None = None) -> Agreement:
    return Agreement(
        ranks,
        stop or StopRequest(),
        time_is_up=lambda: False,
        saves=lambda: False,
        tell=lambda: Standing(peak_bytes=3, joining=0.5, micro_batch_size=4),
    )


def test_nobody_wishes_anything() -> None:
    agreed = _agreement(Heard(QUIET))
    agreed.settle()
    assert (agreed.code, agreed.save, agreed.over, agreed.save_due) == (None, False, False, False)
    assert [one.peak_bytes for one in agreed.told] == [3, 5]
    assert [one.joining for one in agreed.told] == [0.5, 0.25]
    assert [one.micro_batch_size for one in agreed.told] == [4, 2]


@pytest.mark.parametrize(
    ("place", "value", "name", "expected"),
    [
        (0, 143.0, "code", ExitCode.TERMINATED),
        (1, 1.0, "save", True),
        (2, 1.0, "over", True),
        (3, 1.0, "save_due", True),
    ],
)
def test_the_others_wish_is_ours(place: int, value: float, name: str, expected: Any) -> None:
    agreed = _agreement(Heard([*QUIET[:place], value, *QUIET[place + 1 :]]))
    agreed.settle()
    assert getattr(agreed, name) == expected


def test_a_signal_of_ours_counts_from_the_next_settling_on() -> None:
    stop = StopRequest()
    agreed = _agreement(ALONE, stop)
    agreed.settle()
    stop.receive(signal.SIGTERM, None)
    assert agreed.code is None  # another process may have settled on going on
    agreed.settle()
    assert agreed.code is ExitCode.TERMINATED


def test_a_checkpoint_is_granted_once() -> None:
    stop = StopRequest()
    stop.receive(signal.SIGUSR1, None)
    agreed = _agreement(ALONE, stop)
    agreed.settle()
    assert agreed.take_save()
    agreed.settle()
    assert not agreed.take_save()


def test_weights_that_part_are_found() -> None:
    weights = {"A": torch.nn.Parameter(torch.ones(3))}
    same = [(3.0, 3.0)]
    check_same(weights, Heard(same))
    with pytest.raises(DivergedError, match="process 1"):
        check_same(weights, Heard([(3.0, 3.0 + 1e-12)]))
