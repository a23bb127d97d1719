from __future__ import annotations

import json
from pathlib import Path

import pytest

from qtune.cli.app import run_app
from tests.recipe.importing import given


@pytest.fixture(autouse=True)
def _theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "theirs.yaml").write_text(given.AXOLOTL)


def test_a_recipe_is_written_that_validates(capfd: pytest.CaptureFixture[str]) -> None:
    assert run_app(["import", "theirs.yaml", "-o", "new/recipe.yaml"]) == 0
    said = capfd.readouterr()
    assert said.out == ""
    assert "axolotl: " in said.err
    assert "not in qtune: early_stopping_patience (3)" in said.err
    assert "next: qtune plan new/recipe.yaml" in said.err
    assert run_app(["validate", "new/recipe.yaml"]) == 0


def test_nothing_is_overwritten(capfd: pytest.CaptureFixture[str]) -> None:
    Path("recipe.yaml").write_text("mine")
    assert run_app(["import", "theirs.yaml", "-o", "recipe.yaml"]) == 7
    assert "exists already" in capfd.readouterr().err
    assert Path("recipe.yaml").read_text() == "mine"


def test_without_a_file_stdout_is_the_recipe(capfd: pytest.CaptureFixture[str]) -> None:
    assert run_app(["import", "theirs.yaml"]) == 0
    said = capfd.readouterr()
    Path("ours.yaml").write_text(said.out)
    assert run_app(["validate", "ours.yaml"]) == 0
    assert said.out.startswith("# Converted from theirs.yaml (axolotl)")


def test_json_holds_all_of_it(capfd: pytest.CaptureFixture[str]) -> None:
    assert run_app(["import", "theirs.yaml", "--devices", "2", "--json"]) == 0
    told = json.loads(capfd.readouterr().out)
    assert told["tool"] == "axolotl"
    assert told["values"]["train.batch_size"] == 30
    left = {one["key"]: one for one in told["not_taken_over"]}
    assert left["early_stopping_patience"]["kind"] == "not in qtune"
    assert left["early_stopping_patience"]["line"] > 1


def test_another_objective_is_a_usage_error(capfd: pytest.CaptureFixture[str]) -> None:
    Path("theirs.yaml").write_text(given.AXOLOTL + "rl: dpo\n")
    assert run_app(["import", "theirs.yaml", "-o", "recipe.yaml"]) == 2
    assert "DPO" in capfd.readouterr().err
    assert not Path("recipe.yaml").exists()


def test_train_points_to_import(capfd: pytest.CaptureFixture[str]) -> None:
    Path("tune.yaml").write_text(given.TORCHTUNE)
    assert run_app(["train", "tune.yaml"]) == 2
    assert "qtune import tune.yaml" in capfd.readouterr().err


def test_the_last_layers_of_a_known_model(capfd: pytest.CaptureFixture[str]) -> None:
    Path("mlx.yaml").write_text(given.MLX)
    assert run_app(["import", "mlx.yaml", "--json"]) == 0
    told = json.loads(capfd.readouterr().out)
    assert told["values"]["method.layers_to_transform"] == [24, 25, 26, 27]
