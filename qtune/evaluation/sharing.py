"""Rows that several processes measure together, each its own part of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from qtune.errors import QtuneError
from qtune.evaluation.pace import Unfinished
from qtune.ranks import ALONE, Ranks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qtune.evaluation.pace import Pace

T = TypeVar("T")


@dataclass(frozen=True)
class Together:
    """The processes that measure rows; with a `pace` their passes wait for one another."""

    ranks: Ranks = ALONE
    pace: Pace | None = None

    def each(
        self, numbers: Sequence[int], measure: Callable[[Sequence[int]], Sequence[T]]
    ) -> list[T]:
        """What `measure` finds for each of the numbered rows, in their order, wherever it was
        found.

        What ends the work of one process ends that of all, here, so that none waits for ever.
        """
        if self.pace is not None:
            with self.pace.kept():
                found = self._own(numbers, measure)
            return _whole(self.ranks.everyones(found))
        ended: Exception | None = None
        part: list[T] | None = None
        try:
            part = self._own(numbers, measure)
        except Exception as error:
            if self.ranks.alone or isinstance(error, QtuneError):
                raise
            ended = error
        everyones = self.ranks.everyones(part)
        if ended is not None:
            raise ended
        return _whole(everyones)

    def _own(
        self, numbers: Sequence[int], measure: Callable[[Sequence[int]], Sequence[T]]
    ) -> list[T]:
        """This process's part; in step one row more where another has one more, so that who counts
        rows counts passes."""
        own = list(numbers[self.ranks.seat.rank :: self.ranks.size])
        count, most = len(own), -(-len(numbers) // self.ranks.size)
        if self.pace is not None:
            own += list(numbers[-1:]) * (most - count)
        return list(measure(own))[:count] if own else []


def _whole(parts: Sequence[Sequence[T] | None]) -> list[T]:
    """The parts that were dealt out in turn, in order again; `Unfinished` where one is missing."""
    found = [part for part in parts if part is not None]
    if len(found) < len(parts):
        raise Unfinished
    whole: list[T] = [None] * sum(map(len, found))  # type: ignore[list-item]
    for rank, part in enumerate(found):
        whole[rank :: len(parts)] = part
    return whole


BY_ONE = Together()
