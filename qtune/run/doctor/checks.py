"""Every check in order; those of the device in a process that may die or hang."""

from __future__ import annotations

import json
import queue
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING

from qtune.run.doctor import host, hub_access, versions
from qtune.run.doctor.finding import Finding, guarded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

# In the order of probe.py, which this process does not import: it imports torch when it runs.
DEVICE_CHECKS = ("device", "bf16", "4-bit step", "paged optimizer", "Triton kernels")
PROBE = (sys.executable, "-m", "qtune.run.doctor.probe")
PATIENCE = 60.0
"""Seconds for all checks of the device; kernels compile on their first start."""


def examine(folder: Path | None = None) -> Iterator[Finding]:
    """The findings one by one, as they are made; `folder`: where runs will be written."""
    where = Path() if folder is None else folder
    yield guarded("python", versions.check_python)
    for name in versions.TESTED:
        yield guarded(name, partial(versions.check_package, name))
    yield from try_device()
    for name, check in host_checks(where.resolve()).items():
        yield guarded(name, check)
    yield guarded(hub_access.NAME, hub_access.check_hub)


def host_checks(folder: Path) -> dict[str, Callable[[], Finding]]:
    """The checks of the machine around the device."""
    found: dict[str, Callable[[], Finding]] = {
        "memory": host.check_memory,
        "CPU threads": host.check_cores,
        "limits": host.check_limits,
        "shared memory": host.check_shared_memory,
        "disk of runs": partial(host.check_disk, "disk of runs", folder),
    }
    for name, cache in host.caches().items():
        found[f"cache of {name}"] = partial(host.check_cache, f"cache of {name}", cache)
    return found


def try_device(command: Sequence[str] = PROBE, *, patience: float = PATIENCE) -> Iterator[Finding]:
    """What the device's own process says; a fault for each check it did not live to tell."""
    left = list(DEVICE_CHECKS)
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdout=pipe, stderr=pipe, stdin=subprocess.DEVNULL, text=True
    ) as process:
        lines, said = _Lines(process.stdout), _Lines(process.stderr)
        end = time.monotonic() + patience
        try:
            while left and (line := lines.next(end)) is not None:
                if (found := _finding(line)) is not None:
                    left = [name for name in left if name != found.name]
                    yield found
        finally:
            hung = bool(left) and not lines.ended
            if hung:
                process.kill()
            process.wait()
            lines.join()
            said.join()
    if left:
        reason = f"did not answer in {patience:.0f} s" if hung else _why(process, said.all())
        yield from _untold(left, reason)


def _untold(left: list[str], reason: str) -> Iterator[Finding]:
    first, *rest = left
    advice = "see the driver (nvidia-smi) and reinstall torch and bitsandbytes"
    yield Finding(first, "fault", reason, advice)
    for name in rest:
        yield Finding(name, "fault", f"not tried: {first} ended the checks of the device")


def _why(process: subprocess.Popen[str], said: list[str]) -> str:
    """How a process ended, and its last words."""
    code = process.returncode
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        return f"the process died of {name}"
    last = next((line.strip() for line in reversed(said) if line.strip()), "no reason given")
    return last[:160]


def _finding(line: str) -> Finding | None:
    """A line of the probe; None for what a library prints in between."""
    try:
        told = json.loads(line)
        return Finding(**told)
    except (ValueError, TypeError):
        return None


class _Lines:
    """A stream that a thread reads along, so that its writer never waits."""

    def __init__(self, stream: IO[str] | None) -> None:
        assert stream is not None
        self.ended = False
        self._stream = stream
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._thread = threading.Thread(target=self._pump, daemon=True)
        self._thread.start()

    def _pump(self) -> None:
        for line in self._stream:
            self._lines.put(line)
        self._lines.put(None)

    def next(self, end: float) -> str | None:
        """The next line; None at the end of the stream, or when the clock passes `end`."""
        try:
            line = self._lines.get(timeout=max(0.0, end - time.monotonic()))
        except queue.Empty:
            return None
        self.ended = line is None
        return line

    def all(self) -> list[str]:
        """What is left of a stream that has ended."""
        found = []
        while not self._lines.empty() and (line := self._lines.get()) is not None:
            found.append(line)
        return found

    def join(self) -> None:
        """Wait for the end of the stream."""
        self._thread.join()
