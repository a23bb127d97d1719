"""On what a run is planned."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from qtune.errors import ResourceError
from qtune.plan import Machine
from qtune.ranks import Seat
from qtune.run.memory import limit
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


def test_a_gpu_that_torch_cannot_use_is_no_reason_to_train_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = "0, GPU-aa, NVIDIA GeForce RTX 4090, 24564, 24000\n"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr("qtune.plan.machine._gpu_table", lambda: table)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ResourceError, match=r"RTX 4090, which this torch \(.*\) cannot use"):
        machine_of(Seat())


@pytest.mark.parametrize(("device", "index"), [("cuda", 3), ("cuda:1", 1)])
def test_a_budget_limits_the_card_that_is_used(
    monkeypatch: pytest.MonkeyPatch, device: str, index: int
) -> None:
    told: list[tuple[float, int]] = []
    card = SimpleNamespace(total_memory=40 * 10**9)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: card)
    monkeypatch.setattr(torch.cuda.memory, "_lazy_init", lambda: None)
    monkeypatch.setattr(
        torch._C, "_cuda_setMemoryFraction", lambda *words: told.append(words), raising=False
    )
    limit(torch.device(device), budget=10**10)
    assert told == [(0.25, index)]


def test_without_one_it_is_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert machine_of(Seat()).name == Machine.probe_for(1).name
    assert machine_of(Seat()).device == "cpu"
