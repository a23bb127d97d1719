from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from qtune.cli.app import run_app
from qtune.run import doctor
from qtune.run.doctor import Finding

SOUND = [Finding("python", "ok", "3.11"), Finding("hub", "warning", "no answer", "connect")]
BROKEN = Finding("4-bit step", "fault", "ImportError: [no] bitsandbytes", "pip install it")


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[Finding]:
    found = list(SOUND)

    def examine(_: Path | None) -> Iterator[Finding]:
        return iter(found)

    monkeypatch.setattr(doctor, "examine", examine)
    return found


def test_a_sound_machine_exits_with_0(
    found: list[Finding], capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_app(["doctor"]) == 0
    said = capfd.readouterr().out
    assert "-> connect" in said
    assert "1 warning" in said
    found.pop()
    assert run_app(["doctor"]) == 0
    assert "healthy" in capfd.readouterr().out


def test_a_fault_exits_with_5(found: list[Finding], capfd: pytest.CaptureFixture[str]) -> None:
    found.append(BROKEN)
    assert run_app(["doctor"]) == 5
    said = capfd.readouterr().out
    assert "1 fault, 1 warning" in said
    assert "ImportError: [no] bitsandbytes" in said
    assert "-> pip install it" in said


def test_json(found: list[Finding], capfd: pytest.CaptureFixture[str]) -> None:
    found.append(BROKEN)
    assert run_app(["doctor", "--json"]) == 5
    told = json.loads(capfd.readouterr().out)
    assert told["healthy"] is False
    assert told["findings"][-1] == BROKEN.to_dict()
