"""`qtune report` and `qtune watch` as commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qtune.cli.app import run_app
from tests.run.pages.made import records, write_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run")


def test_a_page_is_made_again_in_its_folder(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        assert run_app(["report", str(run)]) == 0
        assert capsys.readouterr().out.strip() == str(run / "report.html")
    assert (run / "report.html").stat().st_size


def test_a_file_that_is_there_is_not_overwritten(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other, target = write_run(tmp_path / "other"), tmp_path / "both.html"
    assert run_app(["report", str(run), str(other), "-o", str(target), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["page"], told["bytes"]) == (str(target), target.stat().st_size)
    assert run_app(["report", str(run), str(other), "-o", str(target)]) == 7
    assert "exists already" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["report", "watch"])
def test_what_is_no_run_is_refused(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_app([verb, str(tmp_path / "nothing")]) == 2
    assert run_app([verb, str(tmp_path)]) == 2
    assert "not a run folder" in capsys.readouterr().err


def test_watching_a_finished_run_ends_as_it_did(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_app(["watch", str(run)]) == 9
    told = capsys.readouterr()
    assert "finished, 1 gate failed" in told.out
    assert "gates.min_exact_match: 0.75, at least 0.9 is asked: FAILED" in told.out
    assert "step 60/60" in told.err
    assert "step 1/60" not in told.err


def test_watching_in_json_is_a_line_a_record_and_the_end(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_app(["watch", str(run), "--json"]) == 9
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line for line in lines if line["kind"] not in ("log", "end")] == records()
    assert lines[-1]["kind"] == "end"
    assert lines[-1]["exit_code"] == 9
