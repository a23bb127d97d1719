"""When the steps of a contestant ended, and the memory that it took."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Ticks:
    """When each step ended and what its loss was.

    Memory is counted anew after the first step: what loading and compiling took is told apart.
    """

    last: float = field(default_factory=time.perf_counter)
    last_cpu: float = field(default_factory=time.process_time)
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    def begin(self) -> None:
        """A step begins now."""
        self.last, self.last_cpu = time.perf_counter(), time.process_time()

    def end(self) -> None:
        """A step has ended."""
        self.seconds.append(time.perf_counter() - self.last)
        self.cpu_seconds.append(time.process_time() - self.last_cpu)
        if len(self.seconds) == 1:
            forget_peak()
        self.begin()


def forget_peak() -> None:
    """Let VmHWM begin again at what is resident now (Linux)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_since() -> int | None:
    """The most bytes resident since `forget_peak` (Linux)."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return None
