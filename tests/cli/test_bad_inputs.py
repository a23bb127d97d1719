"""What people get wrong: one to three lines, the right exit code, and nothing left behind."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from qtune.cli.app import run_app
from qtune.recipe.sections import Recipe
from tests.cli import bad_arguments, bad_data, bad_models, bad_recipes
from tests.run.made_run import make_run

CASES = {**bad_recipes.CASES, **bad_data.CASES, **bad_models.CASES, **bad_arguments.CASES}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, rows, a recipe, and a finished run in `done`."""
    folder = tmp_path_factory.mktemp("sound")
    make_run(folder).rename(folder / "done")
    settings = {
        "model": {"name_or_path": "./base"},
        "method": {"name": "lora", "rank": 4},
        "data": {"train": [{"path": "./train.jsonl"}]},
        "train": {"max_steps": 1},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(settings))
    return folder


@pytest.fixture
def folder(sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    copy = tmp_path / "copy"
    shutil.copytree(sound, copy)
    monkeypatch.chdir(copy)
    return copy


def _files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize("name", CASES)
def test_a_fault_is_told_and_leaves_nothing(
    name: str, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    case = CASES[name]
    (folder / "run").mkdir()
    case.change(folder)
    before = _files(folder)
    code = run_app(case.arguments)
    said = capfd.readouterr()
    assert code == case.code, said.err
    assert said.out == ""
    assert "Traceback" not in said.err
    assert all(part in said.err for part in case.says), said.err
    assert 1 <= len(said.err.strip().splitlines()) <= case.lines, said.err
    assert _files(folder) == before


def test_the_sound_folder_trains(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_app(["train", "recipe.yaml", "-o", "run", "--quiet"]) == 0
    assert (folder / "run" / "adapter" / "adapter_model.safetensors").is_file()
    assert capfd.readouterr().err == ""


def _numeric(schema: dict[str, Any], definitions: dict[str, Any], path: str) -> set[str]:
    """Paths of the numbers in a JSON schema, through its references, choices and lists."""
    if "$ref" in schema:
        return _numeric(definitions[schema["$ref"].split("/")[-1]], definitions, path)
    found = {path} if schema.get("type") in ("integer", "number") else set()
    for choice in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
        found |= _numeric(choice, definitions, path)
    for key, inner in schema.get("properties", {}).items():
        found |= _numeric(inner, definitions, f"{path}.{key}" if path else key)
    for inner in (schema.get("items"), schema.get("additionalProperties")):
        found |= _numeric(inner, definitions, path) if isinstance(inner, dict) else set()
    for inner in schema.get("prefixItems", ()):
        found |= _numeric(inner, definitions, path)
    return found


def test_every_number_of_a_recipe_has_a_case() -> None:
    """A new key is not forgotten: each that is a number is set out of its range once."""
    schema = Recipe.model_json_schema()
    numbers = {
        # a part of a combination has the keys of its method
        re.sub(
            r"^method\.parts\.", "method.", re.sub(r"^data\.(train|eval)\.", "data.train.0.", path)
        )
        for path in _numeric(schema, schema["$defs"], "")
    }
    tried = {setting.split("=")[0] for setting in bad_recipes.RANGES}
    tried |= {f"method.{key}" for key in bad_recipes.METHOD_RANGES}
    # any number is good there, or PEFT's to judge
    free = {"model.chat_template_kwargs", "method.scale", "method.config"}
    free |= {"gates.min_measures", "gates.min_measure_gains"}
    assert numbers - tried - free == set()
