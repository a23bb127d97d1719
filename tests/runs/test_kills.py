"""A process killed before each of its disk operations: nothing that was saved is lost."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from qtune import durable
from tests.runs.story import check, go_on, leftovers, live, operations

KILLED = 137
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill loses nothing that the system has, on the disk or not."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


def _killed_before(number: int, act: Callable[[Path], None], path: Path) -> bool:
    """Do `act(path)` in a process that ends, with no word, before its operation `number`."""
    child = os.fork()
    if not child:
        status = 1
        try:
            passed = count()

            def end(*_: object) -> None:
                if next(passed) == number:
                    os._exit(KILLED)

            with durable.watching(end):
                act(path)
            status = 0
        finally:
            os._exit(status)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, KILLED)
    return code == KILLED


def test_a_kill_before_any_operation_loses_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> None:
    monkeypatch.setattr(durable, "BLOCK", 700)  # so that files are cut in their middle too
    seen, returned = operations(tmp_path / "whole")
    assert {"mkdir", "open", "write", "fsync", "rename", "unlink", "rmdir"} == set(seen)
    assert len(seen) >= 80
    for number in range(len(seen)):
        path = tmp_path / "run"
        assert _killed_before(number, live, path)
        saved = [step for step, operations in returned.items() if operations <= number]
        check(path, saved)
        go_on(path)
        check(path, saved)
        assert leftovers(path) == []
        shutil.rmtree(path)
    record_property("G1 kill points", len(seen))
    record_property("G1 survived", len(seen))


def test_a_kill_while_a_killed_run_goes_on_loses_nothing(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Killed in the third checkpoint, then before each operation of the next start."""
    _, returned = operations(tmp_path / "whole")
    torn = tmp_path / "torn"
    assert _killed_before(returned[20] + 20, live, torn)
    assert leftovers(torn)
    for number in count():
        path = tmp_path / "run"
        shutil.copytree(torn, path)
        killed = _killed_before(number, go_on, path)
        check(path, [10, 20])
        go_on(path)
        check(path, [10])  # 20 has given way to a later one
        assert leftovers(path) == []
        shutil.rmtree(path)
        if not killed:
            break
    assert number >= 40
    record_property("G1 kill points", number)
    record_property("G1 survived", number)
