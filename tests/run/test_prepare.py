"""On what a run is planned."""

from __future__ import annotations

import pytest
import torch

from qtune.plan import Machine
from qtune.ranks import Seat
from qtune.run.prepare import machine_of


@pytest.fixture(autouse=True)
def _without_nvidia_smi(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qtune.plan.machine._gpu_table", lambda: "")


def test_a_gpu_that_torch_alone_names_is_planned_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (18 * 2**30, 20 * 2**30))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA A100 MIG 3g.20gb")
    found = machine_of(Seat(size=2, local_size=2))
    assert (found.device, found.name) == ("cuda", "NVIDIA A100 MIG 3g.20gb")
    assert (found.device_memory, found.seats) == (18 * 2**30, 2)
    assert "in use" in found.note


def test_without_one_it_is_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert machine_of(Seat()).name == Machine.probe_for(1).name
    assert machine_of(Seat()).device == "cpu"
