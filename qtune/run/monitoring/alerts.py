"""What to look after while a run trains, each thing said once with what to do."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING

from qtune.plan import human

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from qtune.plan import Plan
    from qtune.training import StepEvent

LOADER_SHARE = 0.25
"""Of the time in which nothing ran because the rows were not there."""
LOADER_SECONDS = 10.0
"""Over so long at least."""
SLOW_SHARE = 0.6
"""Of the run's own median speed."""
SLOW_EVENTS, MEDIAN_EVENTS, SLOW_SECONDS = 5, 20, 5.0
"""So many logged events in a row, after so many others, over so long at least."""
MEMORY_SHARE, MEMORY_FULL = 0.95, 0.98
"""Of what the run may use: more than was planned; planned or not."""
STRAGGLER_SHARE, STRAGGLER_SECONDS = 0.15, 20.0
"""Of the time, that the others wait for the slowest process; over so long at least."""
HOST_SHARE = 0.05
"""Of the host memory that was free when the plan was made."""
DISK_CHECKPOINTS, DISK_BYTES = 2, 64 * 2**20
"""Checkpoints for which there should be room, and bytes beside them."""


@dataclass(frozen=True)
class Alert:
    """A warning by its name: each is given once."""

    name: str
    message: str


@dataclass
class Alerts:
    """Watches logged events and readings of one run; sizes in bytes, 0 for what is not known."""

    budget_bytes: int = 0
    planned_bytes: int = 0
    host_bytes: int = 0
    checkpoint_bytes: int = 0
    _given: set[str] = field(default_factory=set, init=False)
    _events: deque[StepEvent] = field(default_factory=lambda: deque(maxlen=50), init=False)
    _speeds: list[float] = field(default_factory=list, init=False)

    @classmethod
    def of_plan(cls, decided: Plan) -> Alerts:
        """The limits that a plan knows."""
        return cls(
            budget_bytes=decided.budget_bytes,
            planned_bytes=decided.device_bytes,
            host_bytes=decided.machine.host_memory,
            checkpoint_bytes=decided.checkpoint_bytes,
        )

    def on_step(self, event: StepEvent) -> list[Alert]:
        """After a logged step, whose numbers may be of several."""
        self._events.append(event)
        self._speeds.append(event.tokens_per_second)
        return self._new([*self._loader(), *self._throughput()])

    def on_ranks(self, joining: Sequence[float], *, seconds: float) -> list[Alert]:
        """After hearing for how many of the `seconds` each process has waited for the others."""
        return self._new([*self._straggler(joining, seconds)])

    def on_readings(self, found: Mapping[str, float]) -> list[Alert]:
        """After readings: `peak_bytes`, `host_free_bytes`, `disk_free_bytes`, as far as known."""
        return self._new([*self._memory(found), *self._host(found), *self._disk(found)])

    def _new(self, alerts: list[Alert]) -> list[Alert]:
        new = [alert for alert in alerts if alert.name not in self._given]
        self._given.update(alert.name for alert in new)
        return new

    def _straggler(self, joining: Sequence[float], seconds: float) -> Iterator[Alert]:
        slowest = min(range(len(joining)), key=lambda rank: joining[rank])
        lost = (sum(joining) - joining[slowest]) / (len(joining) - 1) - joining[slowest]
        if seconds >= STRAGGLER_SECONDS and lost >= STRAGGLER_SHARE * seconds:
            yield Alert(
                "straggler",
                f"the others wait for process {slowest} {lost / seconds:.0%} of the time: see what "
                "else its machine does, and whether its device runs hot",
            )

    def _loader(self) -> Iterator[Alert]:
        waits = [event.waited for event in self._events]
        waited = sum(waits) - max(waits)  # one long wait alone is an accident
        seconds = sum(event.seconds for event in self._events)
        if seconds >= LOADER_SECONDS and waited >= LOADER_SHARE * seconds:
            yield Alert(
                "loader",
                f"{waited / seconds:.0%} of the last {seconds:.0f} s were spent waiting for rows: "
                "put the data on a local disk, or leave cores free for reading and tokenising",
            )

    def _throughput(self) -> Iterator[Alert]:
        before = self._speeds[:-SLOW_EVENTS]
        last = list(self._events)[-SLOW_EVENTS:]
        seconds = sum(event.seconds for event in last)
        if len(before) < MEDIAN_EVENTS or seconds < SLOW_SECONDS:
            return
        usual = median(before)
        now = sum(event.tokens for event in last) / seconds
        if now < SLOW_SHARE * usual:
            yield Alert(
                "throughput",
                f"{now:,.0f} tokens/s in the last {seconds:.0f} s, {usual:,.0f} is this run's "
                "median: see what else uses the device or the cores, and whether it runs hot",
            )

    def _memory(self, found: Mapping[str, float]) -> Iterator[Alert]:
        peak = found.get("peak_bytes")
        if peak is None or not self.budget_bytes:
            return
        share = peak / self.budget_bytes
        if share >= MEMORY_FULL or (share >= MEMORY_SHARE and peak > self.planned_bytes):
            yield Alert(
                "memory",
                f"{human(round(peak))} of {human(self.budget_bytes)} of memory have been in use "
                f"({share:.0%}): a longer batch may not fit; memory.on_oom: shrink goes on then, a "
                "smaller memory.budget plans with more room",
            )

    def _host(self, found: Mapping[str, float]) -> Iterator[Alert]:
        free = found.get("host_free_bytes")
        if free is not None and free < HOST_SHARE * self.host_bytes:
            yield Alert(
                "host memory",
                f"{human(round(free))} of host memory are left: the system ends a process when "
                "there is none; close what else runs on this machine",
            )

    def _disk(self, found: Mapping[str, float]) -> Iterator[Alert]:
        free = found.get("disk_free_bytes")
        needed = DISK_CHECKPOINTS * self.checkpoint_bytes + DISK_BYTES
        if free is not None and free < needed:
            yield Alert(
                "disk",
                f"{human(round(free))} of disk are left, and a checkpoint takes "
                f"{human(self.checkpoint_bytes)}: free some space, or keep fewer with "
                "checkpoint.keep",
            )
