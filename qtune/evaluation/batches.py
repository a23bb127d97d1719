"""Rows measured a batch at a time, by one process or several."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from qtune.evaluation.decode import evaluating
from qtune.evaluation.sharing import BY_ONE, Together

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from torch import nn

    from qtune.data import Rows

    Numbers = Sequence[int]
    Progress = Callable[[int, int], None]

T = TypeVar("T")


def by_batch(
    order: Numbers,
    batches: Callable[[Numbers], Iterable[Numbers]],
    measure: Callable[[Numbers], Iterable[T]],
    *,
    on_found: Callable[[Mapping[int, T]], None] | None = None,
    on_progress: Progress | None = None,
    together: Together = BY_ONE,
) -> dict[int, T]:
    """What `measure` finds, by the numbers in `order`, which are dealt out in turn; each process
    makes `batches` of its own part, of which `on_found` and `on_progress(done, all)` hear."""

    def part(numbers: Numbers) -> list[T]:
        found: list[T] = []
        for batch in batches(numbers):
            some = list(measure(batch))
            found += some
            if on_found is not None:
                on_found(dict(zip(batch, some, strict=True)))
            if on_progress is not None:
                on_progress(len(found), len(numbers))
        return found

    return dict(zip(order, together.each(order, part), strict=True))


def slices(size: int) -> Callable[[Numbers], Iterator[Numbers]]:
    """Cuts numbers into batches of so many, the last of what is left."""

    def cut(numbers: Numbers) -> Iterator[Numbers]:
        for start in range(0, len(numbers), size):
            yield numbers[start : start + size]

    return cut


def each_row(
    model: nn.Module,
    rows: Rows,
    measure: Callable[[Numbers], Iterable[T]],
    *,
    batch_size: int,
    on_progress: Progress | None = None,
    together: Together = BY_ONE,
) -> list[T]:
    """What `measure` finds for every row, given the numbers of a batch of them, in eval mode;
    `on_progress(done, all)` after each batch of this process's part."""
    # Rows of like length share a batch: less padding, and the same sums.
    order = (-rows.lengths).argsort(kind="stable").tolist()
    with evaluating(model):
        found = by_batch(
            order, slices(batch_size), measure, on_progress=on_progress, together=together
        )
    return [found[number] for number in range(len(rows))]
