"""Rows that are measured by several processes: each once, in their order, or not at all."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TYPE_CHECKING, Any

import pytest
import torch

from qtune.evaluation.pace import Pace, Unfinished
from qtune.evaluation.sharing import BY_ONE, Together
from qtune.ranks import Ranks, Seat
from tests.tiny import tiny_llama

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


class Threads(Ranks):
    """A process of several that are threads."""

    def __init__(self, rank: int, tables: list[list[Any]], barrier: Barrier) -> None:
        super().__init__(Seat(rank, len(tables)))
        self.tables = tables
        self.barrier = barrier

    def everyones(self, value: Any) -> list[Any]:
        """What every thread came with."""
        self.tables[self.seat.rank] = value
        self.barrier.wait(60)
        found = list(self.tables)
        self.barrier.wait(60)
        return found

    table = everyones


def _in_step(
    passes: Sequence[int], numbers: Sequence[int], stops: tuple[int, int] = (0, -1)
) -> list[tuple[list[Any] | None, list[int]]]:
    """What each thread finds, and the batches that it passed; row n takes `passes[n]` of them.
    `stops`: a rank, and the pass before which it asks to stop."""
    size, tables, barrier = 2, [[], []], Barrier(2)

    def one(rank: int) -> tuple[list[Any] | None, list[int]]:
        model = tiny_llama()
        seen: list[int] = []

        def note(_: Any, __: Any, settings: dict[str, Any]) -> None:
            seen.append(int(settings["input_ids"].sum()))

        def measure(own: Sequence[int]) -> list[int]:
            for number in own:
                for _ in range(passes[number]):
                    model(input_ids=torch.tensor([[number]]))
            return _squares(own)

        ranks = Threads(rank, tables, barrier)
        pace = Pace(ranks, model, lambda: (rank, len(seen)) == stops)
        together = Together(ranks, pace)
        model.base_model.register_forward_pre_hook(note, with_kwargs=True)
        try:
            return together.each(numbers, measure), seen
        except Unfinished:
            return None, seen

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(one, range(size)))


def test_in_step_each_makes_as_many_passes() -> None:
    numbers = [1, 2, 3, 4, 5]
    passes = [0, 1, 4, 1, 2, 3]
    (first, mine), (second, others) = _in_step(passes, numbers)
    assert first == second == _squares(numbers)
    assert mine == [1, 3, 5, 5, 5, 0, 0, 0, 0]  # then goes along
    assert others == [2, 2, 2, 2, 4, 4, 5, 5, 5]  # the last row once more, for who counts rows


def test_in_step_who_has_no_rows_goes_along() -> None:
    (first, mine), (second, others) = _in_step([0, 0, 3], [2])
    assert first == second == [4]
    assert (mine, others) == ([2] * 3, [2] * 3)


@pytest.mark.parametrize("stops", [(0, 2), (1, 2), (0, 7), (1, 7)])
def test_in_step_all_leave_before_the_same_pass(stops: tuple[int, int]) -> None:
    found = _in_step([0, 1, 4, 1, 2, 3], [1, 2, 3, 4, 5], stops)
    assert [rows for rows, _ in found] == [None, None]
    assert {len(seen) for _, seen in found} == {stops[1]}
