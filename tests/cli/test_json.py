"""Under --json every verb prints one JSON object on stdout and nothing else, well or not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from qtune.cli.app import app, run_app
from tests.recipe.importing import given
from tests.run.made_run import make_run

THING, RECIPE, NEW = "{run}", "{run}/recipe.yaml", "{tmp}/new"
VERBS: dict[str, list[str]] = {
    "train": [RECIPE, "-o", NEW],
    "train --dry-run": [RECIPE, "-o", NEW],
    "eval": [THING, "--rows", "2", "-o", "{tmp}/eval.json"],
    "merge": [THING, "-o", NEW, "--dtype", "float32"],
    "export": [THING, "-o", NEW],
    "push": [THING, "me/it", "--dry-run"],
    "quantize": ["{run}/../base", "-o", NEW],
    "prune": ["{run}/../base", "-o", NEW, "--method", "magnitude"],
    "generate": [THING, "--prompt", "1: red ->", "--max-new-tokens", "2"],
    "plan": [RECIPE],
    "methods": [],
    "init": ["-m", "{run}/../base", "-d", "{run}/../train.jsonl", "-o", "{tmp}/new/first.yaml"],
    "import": ["{run}/theirs.yaml"],
    "cost": [RECIPE, "--run", THING],
    "validate": [RECIPE],
    "show": [RECIPE],
    "data preview": [RECIPE, "-n", "1"],
    "data stats": [RECIPE],
    "data check": [RECIPE],
    "data teach": [RECIPE, "-o", NEW, "--set", "loss.teacher=base"],
    "report": [THING],
    "runs list": ["{run}"],
    "runs show": ["{run}"],
    "runs diff": ["{run}", "{run}"],
}
WITHOUT = {"schema", "chat"}
"""What prints nothing but JSON anyway, and what is a talk."""
ELSEWHERE = {"compare", "doctor", "sweep", "watch"}
"""Whose processes would take long, or which tells a line of JSON for each event: the tests are in
tests/run (test_comparison.py, doctor, sweeping, test_watch.py)."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = make_run(tmp_path_factory.mktemp("json"))
    (run / "plan.json").write_text("{}")
    (run / "theirs.yaml").write_text(given.MLX)
    return run


def _commands(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        inner = getattr(command, "commands", None)
        if inner is None:
            yield f"{prefix}{name}", command
        else:
            yield from _commands(command, f"{prefix}{name} ")


def test_every_verb_is_tried_here() -> None:
    found = dict(_commands(typer.main.get_command(app)))
    with_json = {
        name
        for name, command in found.items()
        if any("--json" in option.opts for option in command.params)
    }
    assert with_json - ELSEWHERE == {verb.partition(" --")[0] for verb in VERBS}
    assert found.keys() - with_json == WITHOUT


@pytest.mark.parametrize("verb", VERBS)
def test_a_result_is_one_object(
    verb: str, run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = [word.format(run=run, tmp=tmp_path) for word in VERBS[verb]]
    code = run_app([*verb.split(), *words, "--json"])
    said = capfd.readouterr()
    assert code == 0, said.err
    told = json.loads(said.out)
    assert isinstance(told, dict)
    assert "error" not in told


@pytest.mark.parametrize("verb", [verb for verb, words in VERBS.items() if words])
def test_a_failure_is_one_object(
    verb: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    nowhere = tmp_path / "nowhere"
    words = [word.format(run=nowhere, tmp=tmp_path) for word in VERBS[verb]]
    code = run_app([*verb.split(), *words, "--json"])
    said = capfd.readouterr()
    # 4: what is given is a model, of the others a path
    assert code == (4 if verb in ("quantize", "prune", "init") else 2)
    told = json.loads(said.out)
    if verb == "validate":  # its own object tells of faulty recipes
        assert told["valid"] is False
        assert told["recipes"][0]["faults"]
    else:
        assert told["exit_code"] == code
        assert told["error"]["kind"] == ("model" if code == 4 else "usage")
        assert told["error"]["faults"][0]["message"]
        assert said.err.startswith("error: ")
