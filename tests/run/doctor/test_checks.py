"""Injected failures: each is one line with what to do, and the others are still made."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from qtune.run.doctor import checks as examining
from qtune.run.doctor.checks import DEVICE_CHECKS, PROBE, try_device
from qtune.run.doctor.finding import Finding, guarded, told, worst

ONE = json.dumps(Finding("device", "ok", "fine").to_dict())


def run(code: str, *, patience: float = 60.0) -> list[Finding]:
    return list(try_device([sys.executable, "-c", code], patience=patience))


def test_the_checks_are_those_of_the_probe() -> None:
    from qtune.run.doctor.probe import CHECKS

    assert tuple(CHECKS) == DEVICE_CHECKS


def test_a_process_that_dies_is_told_and_not_shared() -> None:
    first, second, *rest = run(f"import os; print('{ONE}', flush=True); os.kill(os.getpid(), 11)")
    assert first.state == "ok"
    assert (second.name, second.state) == ("bf16", "fault")
    assert second.said == "the process died of SIGSEGV"
    assert "driver" in second.advice
    assert [each.name for each in rest] == list(DEVICE_CHECKS[2:])
    assert all("not tried: bf16" in each.said for each in rest)


def test_a_process_that_hangs_is_ended() -> None:
    found = run(f"import time; print('{ONE}', flush=True); time.sleep(600)", patience=1.0)
    assert [each.state for each in found] == ["ok", *["fault"] * 4]
    assert found[1].said == "did not answer in 1 s"


def test_a_process_that_cannot_import_torch_says_why() -> None:
    found = run("raise ImportError('libcudart.so.12: cannot open shared object file')")
    assert "libcudart.so.12" in found[0].said
    assert len(found) == len(DEVICE_CHECKS)


def test_lines_of_libraries_are_no_findings() -> None:
    found = run(f"print('warming up'); print('[1, 2]'); print('{ONE}')")
    assert (found[0].name, found[0].state) == ("device", "ok")


def test_without_bitsandbytes_the_rest_is_still_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bitsandbytes.py").write_text("raise ImportError('broken build of it')\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    states = {each.name: each for each in try_device(PROBE)}
    assert tuple(states) == DEVICE_CHECKS
    assert (states["device"].state, states["bf16"].state) == ("ok", "ok")
    for name in ("4-bit step", "paged optimizer"):
        assert states[name].state == "fault"
        assert "broken build of it" in states[name].said
        assert "pip install -U bitsandbytes" in states[name].advice


def test_whatever_a_check_raises_is_a_finding() -> None:
    def broken() -> Finding:
        raise RuntimeError("first line\nsecond line")

    found = guarded("disk", broken, advice="mend it")
    assert found == Finding("disk", "fault", "RuntimeError: first line", "mend it")
    assert len(told(ValueError("x" * 500))) == 160
    assert worst([found, Finding("a", "ok", "")]) == "fault"
    assert worst([Finding("a", "warning", ""), Finding("a", "ok", "")]) == "warning"


def test_a_broken_host_check_leaves_the_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(examining, "try_device", lambda: iter(()))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def refuse() -> Finding:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(examining.host, "check_memory", refuse)
    found = {each.name: each for each in examining.examine(tmp_path)}
    assert found["memory"].state == "fault"
    assert "Input/output error" in found["memory"].said
    assert found["hub"].said == "not asked: HF_HUB_OFFLINE is set"
    assert found["disk of runs"].state in ("ok", "warning")
    assert not list(tmp_path.iterdir())
