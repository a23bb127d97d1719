"""Gates judged on reports, and the files that tell of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from qtune.errors import DataError, ExitCode
from qtune.recipe.results import GatesSection
from qtune.run import gates
from qtune.run.display import Journal, Quiet

REPORT: dict[str, Any] = {
    "recipe": "x",
    "steps": 8,
    "tokens": 100,
    "loss_first": 2.0,
    "loss_last": 1.0,
    "tokens_per_second": 50.0,
    "memory": {"measured_peak_bytes": 3_000_000_000},
    "seconds": 90.0,
    "adapter_step": 4,
    "evaluations": [
        {"step": 0, "loss": 3.0, "perplexity": 20.0, "exact_match": 0.125, "token_f1": 0.5},
        {"step": 4, "loss": 1.0, "perplexity": 2.75, "exact_match": 0.875, "token_f1": 0.75}
        | {"accuracy": 0.625, "macro_f1": 0.5},
        {"step": 8, "loss": 2.0, "perplexity": 7.5, "exact_match": 0.5, "token_f1": 0.625},
    ],
}
ACTUALS = {
    "max_loss": 1.0,
    "max_perplexity": 2.75,
    "min_accuracy": 0.625,
    "min_macro_f1": 0.5,
    "min_exact_match": 0.875,
    "min_token_f1": 0.75,
    "min_loss_drop": 2.0,
    "min_exact_match_gain": 0.75,
    "min_token_f1_gain": 0.25,
    "max_peak_memory": 3_000_000_000,
    "min_tokens_per_second": 50.0,
    "max_wall_time": 90.0,
}
WRITTEN = {"max_peak_memory": "{:.0f}B", "max_wall_time": "{}s"}


def _section(gate: str, limit: float) -> GatesSection:
    value = WRITTEN[gate].format(limit) if gate in WRITTEN else limit
    return GatesSection.model_validate({gate: value})


def test_every_gate_of_the_schema_is_tried_here() -> None:
    by_name = {"min_measures", "min_measure_gains"}
    assert ACTUALS.keys() | by_name == GatesSection.model_fields.keys()


def test_gates_on_measures_by_name() -> None:
    tasks = {"adapter": {"arc": {"accuracy": 0.5, "rows": 8}}, "base": {"arc": {"accuracy": 0.25}}}
    section = GatesSection(
        min_measures={"arc.accuracy": 0.5, "exact_match": 0.9, "arc.bleu": 1.0},
        min_measure_gains={"arc.accuracy": 0.2, "token_f1": 0.3},
    )
    verdicts = gates.judge_run(section, REPORT | {"tasks": tasks})
    assert {verdict.gate: (verdict.actual, verdict.passed) for verdict in verdicts} == {
        "min_measures.arc.accuracy": (0.5, True),
        "min_measures.exact_match": (0.875, False),
        "min_measures.arc.bleu": (None, False),
        "min_measure_gains.arc.accuracy": (0.25, True),
        "min_measure_gains.token_f1": (0.25, False),
    }


@pytest.mark.parametrize("gate", ACTUALS)
def test_each_gate_looks_at_its_measure(gate: str) -> None:
    actual = ACTUALS[gate]
    step = max(abs(actual) / 100, 0.01)
    worse = step if gate.startswith("max_") else -step
    for limit, passed in ((actual, True), (actual + worse, True), (actual - worse, False)):
        [verdict] = gates.judge_run(_section(gate, limit), REPORT)
        assert (verdict.gate, verdict.actual, verdict.passed) == (gate, actual, passed)


def test_what_is_not_finite_or_not_there_does_not_pass() -> None:
    nan = REPORT | {"evaluations": [{"step": 4, "loss": float("nan")}], "tokens_per_second": None}
    section = GatesSection(max_loss=9.0, min_loss_drop=-9.0, min_tokens_per_second=0.1)
    verdicts = gates.judge_run(section, nan)
    assert [(verdict.actual, verdict.passed) for verdict in verdicts] == [(None, False)] * 3


def _journal(tmp_path: Path) -> Journal:
    journal = Journal(Quiet())
    journal.write_to(tmp_path / "log.txt")
    return journal


def test_the_files_of_a_finished_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(page))
    section = GatesSection(max_loss=0.5, min_exact_match=0.5)
    report, code = gates.conclude(tmp_path, section, REPORT, _journal(tmp_path))
    assert code is ExitCode.CHECK_FAILED
    told = json.loads((tmp_path / "gates.json").read_text())
    assert told == report["gates"]
    assert {one["gate"]: one["passed"] for one in told} == {
        "max_loss": False,
        "min_exact_match": True,
    }
    cases = ElementTree.parse(tmp_path / "junit.xml").getroot()[0]  # noqa: S314 - our own
    assert [(case.get("name"), len(case)) for case in cases] == [
        ("run", 0),
        ("max_loss", 1),
        ("min_exact_match", 0),
    ]
    assert page.read_text() == "before\n" + (tmp_path / "summary.md").read_text() + "\n"
    assert "gates: 1 of 2 held" in (tmp_path / "log.txt").read_text()
    failed, held = gates.verdicts_of(report)
    assert str(failed) == "gates.max_loss: 1, at most 0.5 is asked"
    assert held.passed


def test_without_gates_a_run_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path))  # a folder: cannot be written
    report, code = gates.conclude(tmp_path, GatesSection(), REPORT, _journal(tmp_path))
    assert code is ExitCode.DONE
    assert report["gates"] == []
    assert "GITHUB_STEP_SUMMARY cannot be written" in (tmp_path / "log.txt").read_text()


def test_an_error_that_ends_the_run_is_told(tmp_path: Path) -> None:
    error = DataError("bad row", place="/somewhere/of/mine/rows.jsonl:7", hint="see ~/a/b.txt")
    with pytest.raises(DataError), gates.telling_failure(tmp_path, "x"):
        raise error
    [case] = ElementTree.parse(tmp_path / "junit.xml").getroot()[0]  # noqa: S314 - our own
    assert case[0].tag == "error"
    assert case[0].attrib == {"type": "exit 3", "message": "rows.jsonl:7: bad row (see b.txt)"}
    assert "ended with exit code 3" in (tmp_path / "summary.md").read_text()


def test_a_stopped_run_is_neither_passed_nor_failed(tmp_path: Path) -> None:
    gates.stopped(tmp_path, "x", "stopped after step 3", 75, _journal(tmp_path))
    [case] = ElementTree.parse(tmp_path / "junit.xml").getroot()[0]  # noqa: S314 - our own
    assert case[0].tag == "skipped"
    assert not (tmp_path / "gates.json").exists()
