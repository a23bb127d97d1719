"""Threads are as many as the cores that may be used, or fewer."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from qtune.cli import app
from qtune.run import threads
from qtune.run.display import Quiet

CPU = torch.device("cpu")


class _Lines(Quiet):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture(autouse=True)
def _former() -> Iterator[None]:
    former = torch.get_num_threads()
    yield
    torch.set_num_threads(former)


@pytest.mark.parametrize(("asked", "allowed", "used"), [(4, 2, 2), (1, 2, 1), (2, 2, 2)])
def test_a_limit_is_kept_and_a_wish_for_less_too(
    monkeypatch: pytest.MonkeyPatch, asked: int, allowed: int, used: int
) -> None:
    monkeypatch.setattr(threads, "cores", lambda: allowed)
    torch.set_num_threads(asked)
    told: Any = _Lines()
    threads.limit_threads(CPU, told)
    assert torch.get_num_threads() == used
    assert told.lines == [f"CPU: {used} thread{'s' * (used > 1)} on {allowed} cores"]


def test_threads_sleep_while_they_wait_where_the_cores_are_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from qtune import __main__ as entry

    monkeypatch.setattr(entry.signal, "signal", lambda *_: None)
    monkeypatch.setattr(app, "main", lambda: None)
    cases = ((True, None, "PASSIVE"), (False, None, None), (True, "ACTIVE", "ACTIVE"))
    for taken, wish, expected in cases:
        monkeypatch.setattr(entry, "_are_cores_taken", lambda taken=taken: taken)
        monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
        if wish is not None:
            monkeypatch.setenv("OMP_WAIT_POLICY", wish)
        entry.main()
        assert os.environ.get("OMP_WAIT_POLICY") == expected
