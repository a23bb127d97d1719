"""One process a run folder, with real processes."""

from __future__ import annotations

import json
import os
import platform
import selectors
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qtune.errors import ExitCode, OutputError, ResourceError
from qtune.runs import lock

HOLDER = """
import os, sys, time
from pathlib import Path
from qtune.runs import lock
with lock.hold(Path(sys.argv[1])):
    worker = os.fork() if sys.argv[2] == "worker" else 0
    if worker or sys.argv[2] != "worker":
        print(worker, flush=True)
    time.sleep(60)
"""
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts processes that hold a folder, and ends them."""
    started: list[subprocess.Popen[str]] = []

    def begin(*, worker: bool = False) -> subprocess.Popen[str]:
        kind = "worker" if worker else "alone"
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(tmp_path), kind],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_the_second_process_is_told_who_the_first_is(
    start: Start, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    first = start()
    _line(first)
    with pytest.raises(OutputError) as refused, lock.hold(tmp_path):
        pytest.fail("held twice")
    assert refused.value.code == ExitCode.OUTPUT_IN_USE == 7
    said = json.loads((tmp_path / lock.NAME).read_text())
    assert said["pid"] == first.pid
    message = f"process {first.pid} on {platform.node()} since {said['start']}"
    assert message in str(refused.value)
    record_property("G17 second processes refused", 1)


@pytest.mark.parametrize("worker", [False, True], ids=["alone", "with a worker that lives on"])
def test_a_kill_frees_the_folder(start: Start, tmp_path: Path, worker: bool) -> None:
    first = start(worker=worker)
    child = int(_line(first))
    first.kill()
    first.wait()
    try:
        assert (tmp_path / lock.NAME).exists()
        with lock.hold(tmp_path):
            assert json.loads((tmp_path / lock.NAME).read_text())["pid"] == os.getpid()
    finally:
        if child:
            os.kill(child, signal.SIGKILL)
    assert list(tmp_path.iterdir()) == []


def test_of_many_processes_one_holds_the_folder(start: Start) -> None:
    processes = [start() for _ in range(4)]
    with selectors.DefaultSelector() as ready:
        for process in processes:
            ready.register(process.stdout, selectors.EVENT_READ)
        lines = []
        while len(lines) < len(processes):
            for key, _ in ready.select():
                lines.append(key.fileobj.readline())
                ready.unregister(key.fileobj)
    assert sorted(lines) == ["", "", "", "0\n"]  # three ended without a word


def test_the_lock_of_another_file_of_that_name_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who opens the file just before its holder takes it away locks what nobody can find."""
    real = os.open
    opened: list[int] = []

    def open_then_lose(path: Path, *rest: int) -> int:
        handle = real(path, *rest)
        if not opened:
            Path(path).unlink()
        opened.append(handle)
        return handle

    monkeypatch.setattr(os, "open", open_then_lose)
    with lock.hold(tmp_path):
        assert len(opened) == 2
        with pytest.raises(OutputError), lock.hold(tmp_path):
            pytest.fail("held twice")


def test_a_child_that_ends_does_not_free_the_folder(tmp_path: Path) -> None:
    with lock.hold(tmp_path):
        child = os.fork()
        if not child:
            os._exit(0)
        os.waitpid(child, 0)
        with pytest.raises(OutputError), lock.hold(tmp_path):
            pytest.fail("held twice")


def test_a_disk_without_locks_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(ResourceError, match="cannot be locked: Operation not supported"):
        lock.hold(tmp_path).__enter__()
    with pytest.raises(ResourceError, match="cannot be locked: No such file"):
        lock.hold(tmp_path / "absent").__enter__()


def test_a_full_disk_names_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="No space left") as told, lock.hold(tmp_path):
        pass
    assert told.value.filename == str(tmp_path)
    assert list(tmp_path.iterdir()) == []
