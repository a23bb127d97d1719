"""What the host tells of a process: its share of the cores, its memory, and what is left."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from qtune.oom import status
from qtune.plan.cores import cores
from qtune.plan.machine import host_memory

if TYPE_CHECKING:
    from qtune.run.monitoring.gpu import Gpu

Reading = dict[str, float]


class Readings:
    """Reads the machine when asked; each share is that of the time since the last reading."""

    def __init__(self, gpu: Gpu | None) -> None:
        self._gpu = gpu
        self._cores = cores()
        self._wall, self._computed = time.perf_counter(), time.process_time()

    def read(self) -> Reading:
        """The figures of now, by name; what this system does not tell is left out."""
        found = self._host()
        return found | self._gpu.read() if self._gpu else found

    def _host(self) -> Reading:
        wall, computed = time.perf_counter(), time.process_time()
        passed = wall - self._wall
        found: Reading = {}
        if passed > 0:
            found["cpu_share"] = min(1.0, (computed - self._computed) / passed / self._cores)
        self._wall, self._computed = wall, computed
        held = status().get("VmRSS")
        if held is not None:
            found["host_bytes"] = float(held)
            found["host_free_bytes"] = float(host_memory()[0])
        return found
