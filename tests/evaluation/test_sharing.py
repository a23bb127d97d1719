"""Rows that are measured by several processes: each once, in their order, or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from qtune.evaluation.sharing import Unfinished, shared
from qtune.ranks import Ranks, Seat

if TYPE_CHECKING:
    from collections.abc import Sequence

NUMBERS = [7, 3, 9, 1, 5]


class Told(Ranks):
    """A process that hears what the test says the others found."""

    def __init__(self, rank: int, others: dict[int, Any], size: int = 2) -> None:
        super().__init__(Seat(rank, size))
        self.others = others

    def everyones(self, value: Any) -> list[Any]:
        """The test's values beside our own."""
        return [self.others.get(rank, value) for rank in range(self.size)]


def _squares(numbers: Sequence[int]) -> list[int]:
    return [number * number for number in numbers]


def test_alone_all_are_measured_here() -> None:
    assert shared(NUMBERS, _squares) == _squares(NUMBERS)


@pytest.mark.parametrize("rank", [0, 1])
def test_the_parts_come_together_in_order(rank: int) -> None:
    seen: list[int] = []

    def measure(numbers: Sequence[int]) -> list[int]:
        seen.extend(numbers)
        return _squares(numbers)

    other = 1 - rank
    ranks = Told(rank, {other: _squares(NUMBERS[other::2])})
    assert shared(NUMBERS, measure, ranks) == _squares(NUMBERS)
    assert seen == NUMBERS[rank::2]


def test_who_has_no_rows_measures_none() -> None:
    def never(_: Sequence[int]) -> list[int]:
        raise AssertionError

    assert shared([4], never, Told(1, {0: [16]})) == [16]


def test_what_one_leaves_is_finished_by_none() -> None:
    class LeftError(Exception):
        pass

    def leave(_: Sequence[int]) -> list[int]:
        raise LeftError

    with pytest.raises(LeftError):
        shared(NUMBERS, leave, Told(0, {1: [9, 1]}))
    with pytest.raises(Unfinished):
        shared(NUMBERS, _squares, Told(0, {1: None}))
