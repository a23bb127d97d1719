"""Rows that a thread makes: its death and its hanging are told, and end nothing else."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest
import torch

from qtune.data import ahead as module
from qtune.data.ahead import ahead
from qtune.errors import ResourceError


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.01)
    monkeypatch.setattr(module, "SAID_AFTER", 0.1)
    monkeypatch.setattr(module, "LEFT_AFTER", 0.4)
    monkeypatch.setattr(module, "_FAREWELL_SECONDS", 0.1)


class Stuck:
    """Two items, and then a read that does not come back until it is let go."""

    def __init__(self) -> None:
        self.gate = threading.Event()

    def items(self) -> Iterator[int]:
        yield from (1, 2)
        self.read_from_a_dead_disk()

    def read_from_a_dead_disk(self) -> None:
        self.gate.wait(60)


@pytest.fixture
def stuck() -> Iterator[Stuck]:
    stuck = Stuck()
    yield stuck
    stuck.gate.set()


def test_a_thread_that_hangs_is_told_with_its_place_and_then_left(
    stuck: Stuck, record_property: Callable[[str, object], None]
) -> None:
    told: list[str] = []
    with ahead(stuck.items(), most=1, tell=told.append) as items:
        assert [next(items), next(items)] == [1, 2]
        with pytest.raises(
            ResourceError, match=r"their thread hangs in wait \(threading"
        ) as caught:
            next(items)
    assert int(caught.value.code) == 5
    assert "--resume" in caught.value.faults[0].hint
    [line] = told
    assert line.startswith("warning: no rows have come for")
    record_property("G19 hangs told", 1)


def test_a_thread_that_computes_is_waited_for() -> None:
    def slow() -> Iterator[int]:
        end = time.monotonic() + 0.8
        while time.monotonic() < end:
            sum(range(1000))
        yield 1

    told: list[str] = []
    with ahead(slow(), most=1, tell=told.append) as items:
        assert list(items) == [1]
    assert told == []


def test_a_user_that_takes_its_time_hears_nothing(stuck: Stuck) -> None:
    told: list[str] = []
    with ahead(stuck.items(), most=1, tell=told.append) as items:
        next(items)
        time.sleep(0.8)
        assert next(items) == 2
    assert told == []


@pytest.mark.parametrize("kind", [OSError, MemoryError, SystemExit, KeyboardInterrupt])
def test_whatever_ends_the_thread_ends_its_user(
    kind: type[BaseException], record_property: Callable[[str, object], None]
) -> None:
    def dying() -> Iterator[int]:
        yield 1
        raise kind("gone")

    with ahead(dying(), most=1) as items, pytest.raises(kind, match="gone"):
        list(items)
    record_property("G19 deaths told", 1)


def test_a_hanging_thread_does_not_hold_up_the_end(stuck: Stuck) -> None:
    began = time.monotonic()
    with ahead(stuck.items(), most=1) as items:
        assert [next(items), next(items)] == [1, 2]
    assert time.monotonic() - began < 30


def test_the_thread_computes_alone_and_nobody_else_does() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with ahead((torch.get_num_threads() for _ in range(2)), most=1) as found:
            assert list(found) == [1, 1]
            assert torch.get_num_threads() == 2
            later: list[int] = []
            thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
            thread.start()
            thread.join()
            assert later == [2]
    finally:
        torch.set_num_threads(before)
