"""Gates through the command line: verdicts in the report, lines on stderr, exit code 9."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from qtune import recipe
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


def _train(run: Path, output: Path, *more: str) -> int:
    words = [word for one in more for word in ("--set", one)]
    return run_app(["train", str(run / "recipe.yaml"), "-o", str(output), "-q", *words, "--json"])


def _cases(run: Path) -> dict[str | None, ElementTree.Element]:
    suite = ElementTree.parse(run / "junit.xml").getroot()[0]  # noqa: S314 - our own
    return {case.get("name"): case for case in suite}


def test_training_that_misses_a_gate_exits_with_9_and_leaves_its_adapter(
    run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "trained"
    assert _train(run, output) == 9
    said = capfd.readouterr()
    report = json.loads(said.out)
    passed = {one["gate"]: one["passed"] for one in report["gates"]}
    assert passed == {
        "max_loss": True,
        "min_token_f1": True,
        "min_loss_drop": False,
        "max_peak_memory": False,
    }
    lines = said.err.splitlines()
    assert [line.split(":")[2].strip() for line in lines if "gate failed" in line] == [
        "gates.min_loss_drop",
        "gates.max_peak_memory",
    ]
    assert (output / "adapter" / "adapter_model.safetensors").is_file()
    assert json.loads((output / "report.json").read_text())["gates"] == report["gates"]
    assert json.loads((output / "gates.json").read_text()) == report["gates"]
    cases = _cases(output)
    assert [name for name, case in cases.items() if len(case)] == [
        "min_loss_drop",
        "max_peak_memory",
    ]
    assert "2 of 4 gates held" in (output / "summary.md").read_text()

    # run again by CI it does not pass for being done; with other gates it may
    assert _train(run, output, "checkpoint.resume=auto") == 9
    easy = ["gates.min_loss_drop=-9", "gates.max_peak_memory="]
    assert _train(run, output, "checkpoint.resume=auto", *easy) == 0
    # and what is judged by its recipes later is judged by those
    assert json.loads((output / "report.json").read_text())["gates"] != report["gates"]
    for name in ("recipe.yaml", "recipe.lock.yaml"):
        kept = recipe.load(output / name).recipe
        assert (kept.gates.min_loss_drop, kept.gates.max_peak_memory) == (-9.0, None)
        assert kept.train.output_dir is None
    assert recipe.load(output / "recipe.lock.yaml").recipe.pins.base


def test_a_run_that_fails_says_so_in_junit(
    run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "diverged"
    assert _train(run, output, "watchdog.loss_limit=1e-6") == 6
    told = json.loads(capfd.readouterr().out)
    assert told["error"]["kind"] == "diverged"
    [error] = _cases(output)["run"]
    assert (error.tag, error.get("type")) == ("error", "exit 6")
    assert told["error"]["faults"][0]["message"] in str(error.get("message"))
    assert "exit code 6" in (output / "summary.md").read_text()


def test_a_run_whose_time_is_up_is_skipped_in_junit(run: Path, tmp_path: Path) -> None:
    output = tmp_path / "late"
    assert _train(run, output, "train.max_time=0.001s", "train.max_steps=50") == 75
    [skipped] = _cases(output)["run"]
    assert skipped.tag == "skipped"
    assert "max_time" in str(skipped.get("message"))
    assert not (output / "gates.json").exists()
