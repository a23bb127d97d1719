"""Readings of the host and of a card, and what becomes of them."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch

from qtune.run.monitoring import sampler
from qtune.run.monitoring.alerts import Alerts
from qtune.run.monitoring.gpu import Gpu
from qtune.run.monitoring.monitor import Monitor
from qtune.run.monitoring.readings import Readings
from qtune.run.monitoring.sampler import Sampler, summary
from tests.run.monitoring.test_alerts import event


class NvmlError(Exception):
    """As NVML raises it."""


class Nvml:
    """A card as nvidia-ml-py shows it; what is in `lacking` it does not tell."""

    NVMLError = NvmlError
    NVML_TEMPERATURE_GPU = 0

    def __init__(self, *lacking: str) -> None:
        self.lacking = lacking
        self.is_open = False

    def nvmlInit(self) -> None:  # noqa: N802
        self._unless("driver")
        self.is_open = True

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.is_open = False

    def nvmlDeviceGetHandleByUUID(self, identity: str) -> str:  # noqa: N802
        if identity != "GPU-1":
            raise NvmlError
        return identity

    def nvmlDeviceGetUtilizationRates(self, _: str) -> Any:  # noqa: N802
        self._unless("use")
        return SimpleNamespace(gpu=87, memory=40)

    def nvmlDeviceGetMemoryInfo(self, _: str) -> Any:  # noqa: N802
        self._unless("memory")
        return SimpleNamespace(used=7 * 10**9)

    def nvmlDeviceGetPowerUsage(self, _: str) -> int:  # noqa: N802
        self._unless("power")
        return 312_500

    def nvmlDeviceGetTemperature(self, _: str, sensor: int) -> int:  # noqa: N802
        assert sensor == self.NVML_TEMPERATURE_GPU
        return 64

    def _unless(self, what: str) -> None:
        if what in self.lacking:
            raise NvmlError


def test_a_card_is_read_in_shares_bytes_watts_and_degrees() -> None:
    library = Nvml()
    card = Gpu.found(library, "GPU-1")
    assert card is not None
    told = {"gpu_share": 0.87, "gpu_bytes": 7e9, "gpu_watts": 312.5, "gpu_celsius": 64.0}
    assert card.read() == pytest.approx(told)
    card.close()
    assert not library.is_open


def test_what_a_card_does_not_tell_is_left_out() -> None:
    card = Gpu.found(Nvml("use", "power"), "GPU-1")
    assert card is not None
    assert card.read().keys() == {"gpu_bytes", "gpu_celsius"}


@pytest.mark.parametrize(("lacking", "identity"), [("driver", "GPU-1"), ("", "GPU-2")])
def test_no_card_is_no_error(lacking: str, identity: str) -> None:
    assert Gpu.found(Nvml(lacking), identity) is None
    assert Gpu.of(torch.device("cpu")) is None


def test_the_host_is_read_as_psutil_reads_it() -> None:
    readings = Readings(None)
    until = time.process_time() + 0.05
    while time.process_time() < until:
        pass
    found = readings.read()
    process, memory = psutil.Process(), psutil.virtual_memory()
    assert found["host_bytes"] == pytest.approx(process.memory_info().rss, rel=0.05)
    assert 0 < found["host_free_bytes"] <= memory.total
    assert 0 < found["cpu_share"] <= 1


def test_readings_become_means_the_most_held_and_the_least_left() -> None:
    found = [
        {"cpu_share": 0.2, "host_bytes": 5.0, "host_free_bytes": 9.0, "gpu_watts": 100.0},
        {"cpu_share": 0.4, "host_bytes": 7.0, "host_free_bytes": 3.0},
        {"cpu_share": 0.9, "host_bytes": 6.0, "host_free_bytes": 8.0},
    ]
    means = {"cpu_share": 0.5, "host_bytes": 7.0, "host_free_bytes": 3.0, "gpu_watts": 100.0}
    assert summary(found) == pytest.approx(means)


class Now:
    """A clock that is put forward by hand."""

    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time


def test_records_are_rarer_the_longer_a_run_takes() -> None:
    now = Now()
    counted = SimpleNamespace(read=lambda: {"cpu_share": 0.5})
    watch = Sampler(counted, clock=now)  # type: ignore[arg-type]
    records = 0
    while now.time < 30 * 3600:
        if watch.is_due():
            watch.take()
            records += 1
        now.time += 1.0
    assert 2000 < records < 3000


def test_the_thread_ends_with_its_block_and_what_it_read_is_taken_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sampler, "SECONDS", 0.001)
    counted = SimpleNamespace(read=lambda: {"cpu_share": 0.5})
    with Sampler(counted) as watch:  # type: ignore[arg-type]
        while len(watch._found) < 3:
            time.sleep(0.001)
        assert watch.take() == {"cpu_share": 0.5}
    assert not [one for one in threading.enumerate() if one.name == "qtune-monitor"]


def test_a_record_joins_the_machine_with_the_wait_of_its_steps(tmp_path: Path) -> None:
    now = Now()
    ceiling: Any = None
    watch = Sampler(Readings(None), clock=now)
    monitor = Monitor(watch, Alerts(), ceiling, folder=tmp_path, before=100.0)
    for step, waited in ((1, 0.5), (2, 0.1)):
        monitor.on_step(event(step, seconds=1.0, waited=waited))
    now.time = 7.0
    taken = monitor.take()
    assert taken is not None
    found, warnings = taken
    assert warnings == []
    assert (found["seconds"], found["wait_share"]) == (107.0, 0.3)
    assert found["peak_bytes"] > 10**6
    assert monitor.take() is None  # the next one is not due
    again = monitor.take(now=True)
    assert again is not None
    assert "wait_share" not in again[0]  # no step since
