"""Rows that are measured by several processes: each once, in their order, or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from qtune.evaluation.sharing import BY_ONE, Together, Unfinished
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
    assert BY_ONE.each(NUMBERS, _squares) == _squares(NUMBERS)


@pytest.mark.parametrize("rank", [0, 1])
def test_the_parts_come_together_in_order(rank: int) -> None:
    seen: list[int] = []

    def measure(numbers: Sequence[int]) -> list[int]:
        seen.extend(numbers)
        return _squares(numbers)

    other = 1 - rank
    ranks = Told(rank, {other: _squares(NUMBERS[other::2])})
    assert Together(ranks).each(NUMBERS, measure) == _squares(NUMBERS)
    assert seen == NUMBERS[rank::2]


def test_who_has_no_rows_measures_none() -> None:
    def never(_: Sequence[int]) -> list[int]:
        raise AssertionError

    assert Together(Told(1, {0: [16]})).each([4], never) == [16]


def test_what_one_leaves_is_finished_by_none() -> None:
    class LeftError(Exception):
        pass

    def leave(_: Sequence[int]) -> list[int]:
        raise LeftError

    with pytest.raises(LeftError):
        Together(Told(0, {1: [9, 1]})).each(NUMBERS, leave)
    with pytest.raises(Unfinished):
        Together(Told(0, {1: None})).each(NUMBERS, _squares)


def test_in_step_each_makes_as_many_passes() -> None:
    passes: list[int] = []

    def measure(numbers: Sequence[int]) -> list[int]:
        passes.append(len(numbers))
        return _squares(numbers)

    for rank in (0, 1):
        ranks = Told(rank, {1 - rank: _squares(NUMBERS[1 - rank :: 2])})
        together = Together(ranks, in_step=True)
        assert together.each(NUMBERS, measure) == _squares(NUMBERS)
        assert together.uncounted.each(NUMBERS, measure) == _squares(NUMBERS)
    assert passes == [3, 5, 3, 5]
