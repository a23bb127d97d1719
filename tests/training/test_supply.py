"""How long the loop has waited for its rows."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from qtune.training import supply
from qtune.training.loop import _Clock
from qtune.training.supply import Supply


class Feed:
    """Micro-batches that take as long to come as is said, on a clock that is put forward."""

    def __init__(self, seconds: list[float]) -> None:
        self.seconds = seconds
        self.now = 0.0

    def steps(self, total: int, *, start: int) -> Iterator[list[Any]]:
        for seconds in self.seconds[start:total]:
            self.now += seconds
            yield []


def test_each_wait_is_told_but_that_for_the_reading_to_begin(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    feed = Feed([5.0, 0.25, 0.0, 1.5])
    monkeypatch.setattr(supply, "time", SimpleNamespace(perf_counter=lambda: feed.now))
    given = Supply(feed, 4, start=0)  # type: ignore[arg-type]
    assert [given.waited for _ in given] == [0.0, 0.25, 0.0, 1.5]


def test_a_step_begins_when_its_rows_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([10.0, 14.0])
    monkeypatch.setattr("qtune.training.loop.time", SimpleNamespace(perf_counter=times.__next__))
    clock = _Clock()
    assert clock.seconds(8.0) == 2.0
    assert clock.seconds(11.0) == 3.0  # one second between the steps belongs to neither
