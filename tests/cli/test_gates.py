"""Gates through the command line: verdicts in the report, lines on stderr, exit code 9."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from qtune.cli.app import run_app
from tests.run.made_run import make_run

GATES = {"max_loss": 9.0, "min_loss_drop": 5.0, "min_token_f1": 0.0, "max_peak_memory": "1B"}
HELD_OUT_GATES = ("max_loss", "min_loss_drop", "min_token_f1")
NO_HELD_OUT_GATE = [word for gate in HELD_OUT_GATES for word in ("--set", f"gates.{gate}=")]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gates")
    return make_run(folder, eval={"generate_rows": 2, "max_new_tokens": 4}, gates=GATES)


def _eval(run: Path, *more: str) -> int:
    return run_app(["eval", str(run), *more, "--quiet"])


def test_an_evaluation_is_judged_when_it_is_asked(
    run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "eval.json"
    assert _eval(run, "--gates", "--json", "-o", str(output)) == 9
    said = capfd.readouterr()
    report = json.loads(said.out)
    verdicts: dict[str, Any] = {one["gate"]: one for one in report["gates"]}
    assert list(verdicts) == ["max_loss", "min_token_f1", "min_loss_drop"]
    assert verdicts["max_loss"]["actual"] == report["adapter"]["loss"]
    gap = report["base"]["loss"] - report["adapter"]["loss"]
    assert verdicts["min_loss_drop"]["actual"] == pytest.approx(gap)
    assert said.err.splitlines() == [
        f"error: gate failed: gates.min_loss_drop: {gap:.6g}, at least 5 is asked"
    ]
    assert json.loads(output.read_text()) == report
    suite = ElementTree.parse(tmp_path / "eval.junit.xml").getroot()[0]  # noqa: S314 - our own
    assert (suite.get("tests"), suite.get("failures")) == ("4", "1")


def test_gates_that_hold_are_no_news(
    run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    override = ["--set", "gates.min_loss_drop=-9"]
    assert _eval(run, "--gates", *override, "-o", str(tmp_path / "e.json")) == 0
    assert capfd.readouterr().err == ""
    assert _eval(run, "-o", str(tmp_path / "f.json")) == 0  # not asked for
    assert "gates" not in json.loads((tmp_path / "f.json").read_text())


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--generate", "0"], "gates.min_token_f1: cannot be judged: no answers are generated"),
        (NO_HELD_OUT_GATE, "--gates judges held-out measures"),
    ],
)
def test_what_cannot_be_judged_is_told_before_the_work(
    run: Path, more: list[str], says: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert _eval(run, "--gates", *more) == 2
    assert says in capfd.readouterr().err


def test_a_plain_model_has_no_base_to_be_better_than(
    run: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    base, recipe = str(run.parent / "base"), str(run / "recipe.yaml")
    assert run_app(["eval", base, recipe, "--gates", "-q"]) == 2
    assert "gates.min_loss_drop: cannot be judged" in capfd.readouterr().err
