"""The monitor of one run: what is logged of the machine beside the steps, and its warnings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtune.durable import free_bytes
from qtune.run.memory import peak_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from qtune.run.ceiling import Ceiling
    from qtune.run.monitoring.alerts import Alert, Alerts
    from qtune.run.monitoring.readings import Reading
    from qtune.run.monitoring.sampler import Sampler
    from qtune.training import StepEvent


class Monitor:
    """Joins readings of the machine with what the steps tell.

    `before`: seconds that the run took before this process.
    """

    def __init__(
        self, sampler: Sampler, alerts: Alerts, ceiling: Ceiling, *, folder: Path, before: float
    ) -> None:
        self.ceiling = ceiling
        self._sampler = sampler
        self._alerts = alerts
        self._folder = folder
        self._before = before
        self._waited = self._stepped = 0.0

    def on_step(self, event: StepEvent) -> list[Alert]:
        """Count a logged step; returns what is to be said now."""
        self._waited += event.waited
        self._stepped += event.seconds
        return self._alerts.on_step(event)

    def on_ranks(self, joining: Sequence[float]) -> list[Alert]:
        """After hearing for how many seconds each process has waited for the others so far."""
        return self._alerts.on_ranks(joining, seconds=self._sampler.seconds)

    def take(self, *, now: bool = False) -> tuple[Reading, list[Alert]] | None:
        """The figures since the last record and what is to be said of them; None while the next
        record is not due, unless it is wanted `now`."""
        if not now and not self._sampler.is_due():
            return None
        found = {name: _rounded(name, value) for name, value in self._sampler.take().items()}
        if self._stepped:
            found["wait_share"] = round(min(1.0, self._waited / self._stepped), 4)
        self._waited = self._stepped = 0.0
        found["peak_bytes"] = peak_bytes()
        alerts = self._alerts.on_readings(found | {"disk_free_bytes": free_bytes(self._folder)})
        return {"seconds": round(self._before + self._sampler.seconds, 2)} | found, alerts


def _rounded(name: str, value: float) -> float:
    return int(value) if name.endswith("bytes") else round(value, 4)
