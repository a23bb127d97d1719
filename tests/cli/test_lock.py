"""A second process on a run folder, through the command line."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from qtune.cli.app import run_app
from qtune.runs import lock


@pytest.mark.parametrize("options", [[], ["--resume"]], ids=["new", "resume"])
def test_a_second_run_is_told_who_has_the_folder(
    tmp_path: Path,
    options: list[str],
    capfd: pytest.CaptureFixture[str],
    record_property: Callable[[str, object], None],
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    with lock.hold(folder):
        assert run_app(["train", "quickstart", "-o", str(folder), *options]) == 7
        told = capfd.readouterr().err
        start = json.loads((folder / lock.NAME).read_text())["start"]
    assert f"process {os.getpid()} on" in told
    assert start in told
    assert "Traceback" not in told
    assert len(told.splitlines()) <= 3
    assert list(folder.iterdir()) == []
    record_property("G17 second processes refused", 1)
