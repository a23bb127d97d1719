"""The micro-batches of step after step, in smaller ones from where memory ran out."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from qtune import oom
from qtune.oom import during

if TYPE_CHECKING:
    from collections.abc import Generator

    from qtune.data.batch import Batch
    from qtune.data.feed import Feed, StreamFeed


class Supply:
    """Iterates over (step, micro-batches) from `start` up to `total`; to be closed.

    `waited`: seconds until the last ones were there; 0 for the first, which begin the reading.
    """

    def __init__(self, feed: Feed | StreamFeed, total: int, *, start: int) -> None:
        self.feed = feed
        self._total = total
        self._next = start
        self.waited = 0.0
        self._steps: Generator[list[Batch]] | None = None

    @property
    def rows(self) -> int:
        """The most sequences of a micro-batch."""
        return self.feed.layout.micro_batch_size

    def __iter__(self) -> Supply:
        return self

    def __next__(self) -> tuple[int, list[Batch]]:
        begins = self._steps is None
        if self._steps is None:
            self._steps = self.feed.steps(self._total, start=self._next)
        asked = time.perf_counter()
        with during(oom.ROWS):
            micro_batches = next(self._steps, None)
        self.waited = 0.0 if begins else time.perf_counter() - asked
        if micro_batches is None:
            raise StopIteration
        self._next += 1
        return self._next - 1, micro_batches

    def halve(self) -> None:
        """Half as many rows a micro-batch from now on."""
        self.close()
        self.feed = self.feed.resized(self.rows // 2)

    def again(self) -> list[Batch]:
        """The micro-batches of the step that was given last, after `halve`."""
        self._next -= 1
        _, micro_batches = next(self)
        return micro_batches

    def close(self) -> None:
        """End what makes the next steps."""
        if self._steps is not None:
            self._steps.close()
            self._steps = None
