"""Rows that several processes measure together, each its own part of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from qtune.errors import QtuneError
from qtune.ranks import ALONE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qtune.ranks import Ranks

T = TypeVar("T")


def shared(
    numbers: Sequence[int], measure: Callable[[Sequence[int]], Sequence[T]], ranks: Ranks = ALONE
) -> list[T]:
    """What `measure` finds for each of the numbered rows, in their order, wherever it was found.

    What ends the work of one process ends that of all, here, so that none waits for ever.
    """
    own = numbers[ranks.seat.rank :: ranks.size]
    ended: Exception | None = None
    found: list[T] | None = None
    try:
        found = list(measure(own)) if own else []
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


class Unfinished(Exception):  # noqa: N818 - no fault of anybody's
    """Another process has left its part of the work."""
