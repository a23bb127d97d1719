"""Readings taken by a thread beside the training; whoever logs takes their means."""

from __future__ import annotations

import time
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING, Self

from qtune.run.monitoring.gpu import Gpu
from qtune.run.monitoring.readings import Reading, Readings

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    import torch

SECONDS = 1.0
"""Between two readings."""
RECORD_SECONDS, RECORD_SHARE = 2.0, 1 / 500
"""A record covers so long at least, and such a share of the time so far: long runs stay small."""
_FAREWELL_SECONDS = 2.0
_MOST, _LEAST = ("gpu_bytes", "host_bytes"), ("host_free_bytes",)


class Sampler:
    """A context in which the machine is read each second; `take` gives what came since."""

    def __init__(
        self,
        readings: Readings,
        *,
        gpu: Gpu | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._readings = readings
        self._gpu = gpu
        self._clock = clock
        self._found: list[Reading] = []
        self._lock, self._closed = Lock(), Event()
        self._thread: Thread | None = None
        self._started = clock()
        self._taken = float("-inf")

    @classmethod
    def on(cls, device: torch.device) -> Self:
        """Of the host, and of the card that trains."""
        gpu = Gpu.of(device)
        return cls(Readings(gpu), gpu=gpu)

    def __enter__(self) -> Self:
        self._thread = Thread(target=self._work, name="qtune-monitor", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closed.set()
        if self._thread is not None:
            self._thread.join(_FAREWELL_SECONDS)
        if self._gpu is not None:
            self._gpu.close()

    @property
    def seconds(self) -> float:
        """Since this was made."""
        return self._clock() - self._started

    def is_due(self) -> bool:
        """Whether a record is: the first at once."""
        return self.seconds - self._taken >= max(RECORD_SECONDS, RECORD_SHARE * self.seconds)

    def take(self) -> Reading:
        """One reading for all since the last call: means, the most memory, the least left."""
        self._taken = self.seconds
        with self._lock:
            found, self._found = self._found, []
        return summary(found or [self._read()])

    def _read(self) -> Reading:
        with self._lock:  # shares are of the time since the last reading, whoever took it
            return self._readings.read()

    def _work(self) -> None:
        while not self._closed.wait(SECONDS):
            with self._lock:
                self._found.append(self._readings.read())


def summary(found: list[Reading]) -> Reading:
    """Means by name; of memory the most, of what is left the least."""
    names = dict.fromkeys(name for reading in found for name in reading)
    summed: Reading = {}
    for name in names:
        values = [reading[name] for reading in found if name in reading]
        if name in _MOST:
            summed[name] = max(values)
        elif name in _LEAST:
            summed[name] = min(values)
        else:
            summed[name] = sum(values) / len(values)
    return summed
