"""Rows that several processes measure together, each its own part of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from qtune.errors import QtuneError
from qtune.ranks import ALONE, Ranks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")


@dataclass(frozen=True)
class Together:
    """The processes that measure rows; `in_step`: their passes wait for one another, so each makes
    as many as any other."""

    ranks: Ranks = ALONE
    in_step: bool = False

    @property
    def uncounted(self) -> Together:
        """For work of which nobody knows how many passes it takes: in step, each does all of it."""
        return BY_ONE if self.in_step else self

    def each(
        self, numbers: Sequence[int], measure: Callable[[Sequence[int]], Sequence[T]]
    ) -> list[T]:
        """What `measure` finds for each of the numbered rows, in their order, wherever it was
        found.

        What ends the work of one process ends that of all, here, so that none waits for ever.
        """
        ranks = self.ranks
        ended: Exception | None = None
        found: list[T] | None = None
        try:
            found = self._own(numbers, measure)
        except Exception as error:
            if ranks.alone or isinstance(error, QtuneError):
                raise
            ended = error
        everyones = ranks.everyones(found)
        if ended is not None:
            raise ended
        if any(part is None for part in everyones):
            raise Unfinished
        whole: list[T] = [None] * len(numbers)  # type: ignore[list-item]
        for rank, part in enumerate(everyones):
            whole[rank :: ranks.size] = part or []
        return whole

    def _own(
        self, numbers: Sequence[int], measure: Callable[[Sequence[int]], Sequence[T]]
    ) -> list[T]:
        """This process's part; in step one row more where another has one more."""
        own = list(numbers[self.ranks.seat.rank :: self.ranks.size])
        count, most = len(own), -(-len(numbers) // self.ranks.size)
        if self.in_step:
            own += list(numbers[-1:]) * (most - count)
        return list(measure(own))[:count] if own else []


BY_ONE = Together()


class Unfinished(Exception):  # noqa: N818 - no fault of anybody's
    """Another process has left its part of the work."""
