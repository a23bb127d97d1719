"""The CI files of recipes/ci: what they call exists, and they say the same."""

from __future__ import annotations

import importlib.util
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from qtune import recipe
from qtune.cli.app import app

ROOT = Path(__file__).parents[2]
WORDS = {"$RECIPE": "recipes/ci/recipe.yaml", "$RUN": "runs/finetune", "$GPU": "24GB"}


@pytest.fixture(scope="module")
def script() -> Iterator[Any]:
    name = "try_ci"
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / "try_ci.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[name]


def _commands(script: Any, file: Path) -> list[list[str]]:
    lines = [
        line.strip()
        for job in script.jobs_of(file)
        for step in job.steps
        for line in step.script.splitlines()
    ]
    words = [shlex.split(line) for line in lines if line.startswith("qtune ")]
    return [[WORDS.get(word, word) for word in line[1:]] for line in words]


@pytest.mark.parametrize("name", ["github.yml", "gitlab.yml"])
def test_every_command_of_a_file_is_one_of_qtune(script: Any, name: str) -> None:
    commands = _commands(script, ROOT / "recipes" / "ci" / name)
    assert {line[0] for line in commands} == {"validate", "data", "plan", "train", "eval", "runs"}
    for line in commands:
        group: Any = typer.main.get_command(app)
        while hasattr(group, "commands"):
            group, line = group.commands[line[0]], line[1:]
        group.make_context("qtune", list(line))  # refuses what it does not know


def test_both_files_do_the_same(script: Any) -> None:
    github, gitlab = (_commands(script, file) for file in script.FILES)
    assert github == gitlab


def test_the_recipe_goes_on_stops_itself_and_is_judged() -> None:
    asked = recipe.load(ROOT / "recipes" / "ci" / "recipe.yaml").recipe
    assert asked.checkpoint.resume == "auto"
    assert asked.train.max_time is not None
    assert asked.model.offline
    assert sum(value is not None for _, value in asked.gates) >= 3
