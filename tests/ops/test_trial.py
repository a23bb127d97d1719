"""Kernels are taken where they can run and do what torch does, and the log says why not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from qtune.errors import UsageError
from qtune.ops import trial
from qtune.ops.element_wise import FAMILIES, by_triton, taking
from tests.ops.triton.places import DEVICE, needs_kernels


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    with taking(()):
        yield


def taken() -> list[str]:
    return [family for family in FAMILIES if by_triton(family, torch.zeros(1, device=DEVICE))]


def test_a_cpu_computes_by_torch() -> None:
    assert trial.choose("auto", torch.device("cpu")) == "element by element: torch (no CUDA device)"
    assert not taken()


@pytest.mark.parametrize("kernels", ["plain", "fused"])
def test_torch_is_forced(kernels: str) -> None:
    said = trial.choose(kernels, DEVICE)
    assert said == f"element by element: torch (memory.kernels is {kernels})"
    assert not taken()


def test_without_triton_what_was_asked_for_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qtune.ops.element_wise.find_spec", lambda _: None)
    card = torch.device("cuda")
    assert trial.choose("auto", card) == "element by element: torch (triton is not installed)"
    with pytest.raises(UsageError, match="triton is not installed") as refused:
        trial.choose("triton", card)
    assert refused.value.faults[0].place == "memory.kernels"


class TestWhereKernelsRun:
    pytestmark = needs_kernels

    def test_all_families_are_tried_and_taken(self) -> None:
        said = trial.choose("triton", DEVICE)
        if DEVICE.type == "cpu":  # where NF4 may be slower than bitsandbytes
            assert taken() == list(FAMILIES)
            assert said.endswith(": rms_norm, gated, rotary, nf4, cross_entropy")

    def test_one_that_is_wrong_is_left(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(
            "qtune.ops.triton.rms_norm.backward", lambda _, x, *__: torch.zeros_like(x)
        )
        said = trial.choose("triton", DEVICE)
        assert "rms_norm by torch (its results are 100.0% off)" in said
        assert "rms_norm" not in taken()
        assert "gated" in taken()

    @pytest.mark.parametrize("way", ["nan", "raises"])
    def test_one_that_breaks_is_left(self, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(query: torch.Tensor, key: torch.Tensor, *_: object, **__: object) -> object:
            if way == "raises":
                raise RuntimeError("no such instruction\nand more")
            return query * torch.nan, key

        monkeypatch.setattr("qtune.ops.triton.rotary.rotate", broken)
        said = trial.choose("triton", DEVICE)
        assert "rotary" not in taken()
        assert (way == "nan") != ("rotary by torch (RuntimeError: no such instruction)" in said)
