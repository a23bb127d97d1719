"""What the README says is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from qtune import recipe
from qtune.cli.app import run_app
from qtune.recipe.keys import SECTIONS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_its_recipe_is_valid_and_short(tmp_path: Path) -> None:
    [block] = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    path = tmp_path / "recipe.yaml"
    path.write_text(block)
    asked = recipe.load(path).recipe
    assert asked.model.name_or_path == "Qwen/Qwen3-8B"
    assert asked.data.val_size == 200
    assert block.count("\n") <= 10


def test_it_names_every_verb_and_no_other(capfd: pytest.CaptureFixture[str]) -> None:
    named = set(re.findall(r"^\| `qtune (\w+)", README, re.MULTILINE)) | {"chat"}
    assert run_app(["--help"]) == 0
    listed = set(re.findall(r"^│ (\w+)  ", capfd.readouterr().out, re.MULTILINE))
    assert named == listed


def test_it_names_every_section() -> None:
    [text] = re.findall(r"A recipe has sections: `([^`]*)`", README)
    assert re.split(r",\s+", text) == sorted(SECTIONS, key=re.split(r",\s+", text).index)


def test_its_scripts_and_folders_exist() -> None:
    for name in re.findall(r"scripts/[\w/.]+", README):
        assert (ROOT / name.rstrip("/.")).exists(), name


def test_it_is_short() -> None:
    assert README.count("\n") <= 200
