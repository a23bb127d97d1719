"""Rows measured a batch at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from qtune.evaluation.decode import evaluating
from qtune.evaluation.sharing import BY_ONE, Together

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from torch import nn

    from qtune.data import Rows

    Progress = Callable[[int, int], None]

T = TypeVar("T")


def each_row(
    model: nn.Module,
    rows: Rows,
    measure: Callable[[Sequence[int]], Iterable[T]],
    *,
    batch_size: int,
    on_progress: Progress | None = None,
    together: Together = BY_ONE,
) -> list[T]:
    """What `measure` finds for every row, given the numbers of a batch of them, in eval mode;
    `on_progress(done, all)` after each batch of this process's part."""
    # Rows of like length share a batch: less padding, and the same sums.
    order = (-rows.lengths).argsort(kind="stable").tolist()

    def part(numbers: Sequence[int]) -> list[T]:
        found: list[T] = []
        with evaluating(model):
            for start in range(0, len(numbers), batch_size):
                found += measure(numbers[start : start + batch_size])
                if on_progress is not None:
                    on_progress(len(found), len(numbers))
        return found

    found = dict(zip(order, together.each(order, part), strict=True))
    return [found[number] for number in range(len(rows))]
