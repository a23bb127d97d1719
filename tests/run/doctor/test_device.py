"""The device's checks see what is wrong with it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from qtune.ops import nf4
from qtune.run.doctor import device

pytestmark = pytest.mark.filterwarnings("ignore")


def test_this_machine_is_sound() -> None:
    assert device.check_bf16().state == "ok"
    assert device.check_four_bits().state == "ok"
    assert device.check_paged_optimizer().state == "ok"


def test_the_four_bit_step_is_that_of_the_weights_in_fp32() -> None:
    found = device.four_bit_step(torch.device("cpu"))
    assert set(found) == {"the output", "the input's gradient", "A's gradient", "B's gradient"}
    assert all(0 < far < device.FAR for far in found.values())


def test_a_wrong_four_bit_kernel_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    right = nf4.dequantize
    monkeypatch.setattr(nf4, "dequantize", lambda *given: right(*given) * 1.1)
    found = device.check_four_bits()
    assert found.state == "fault"
    assert "reinstall bitsandbytes" in found.advice


def test_a_wrong_optimizer_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    from qtune import optim

    def plain(_: Any, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        return torch.optim.SGD(groups, lr=0.01)

    monkeypatch.setattr(optim, "make", plain)
    found = device.check_paged_optimizer()
    assert found.state == "fault"
    assert "optim.name: adamw" in found.advice


def test_wrong_bf16_products_are_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "bfloat16", lambda self: self * 1.2)
    assert device.check_bf16().state == "fault"


def test_a_driver_that_does_not_answer_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    found = device.check_device()
    assert found.state == "warning"
    assert "no GPU answers" in found.said
    assert "nvidia-smi" in found.advice


def test_a_full_or_an_old_gpu_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    card = SimpleNamespace(name="Card", major=8, minor=6)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: card)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (2 * 10**9, 24 * 10**9))
    monkeypatch.setattr(torch, "ones", lambda *_, **__: torch.zeros(1))
    found = device.check_device()
    assert (found.state, "capability 8.6" in found.said) == ("warning", True)
    assert "another process" in found.advice
    card.major = 6
    assert "older" in device.check_device().advice


def test_no_triton_on_a_cpu_is_no_fault() -> None:
    found = device.check_triton()
    assert (found.state, found.said) == ("ok", "not taken: no CUDA device")
