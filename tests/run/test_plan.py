from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from qtune.errors import ModelError, UsageError
from qtune.run.plan import plan
from tests.plan.given import TINY

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text(json.dumps(TINY))
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n' * 40)
    path = tmp_path / "recipe.yaml"
    path.write_text("model: {name_or_path: ./base}\ndata: {train: [{path: rows.jsonl}]}\n")
    return path


def test_a_recipe_is_planned_with_the_rows_of_its_files(recipe: Path) -> None:
    planned = plan(recipe, gpu="24GB", overrides=["train.batch_size=8"])
    assert planned.rows == 40
    assert planned.plan.steps is not None
    assert planned.plan.steps.total == 5
    assert planned.plan.machine.name == "24 GB GPU"
    assert planned.name == "recipe"
    assert planned.to_dict()["rows"]["count"] == 40
    assert planned.to_dict()["device_bytes"] == planned.plan.device_bytes


def test_without_a_card_this_machine_is_meant(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert plan(recipe).plan.machine.device == "cpu"


def test_rows_that_cannot_be_counted_leave_the_steps_open(recipe: Path) -> None:
    planned = plan(recipe, gpu="24GB", overrides=["data.train=[{path: owner/name}]"])
    assert planned.plan.steps is None
    assert "unknown until" in planned.rows_reason


def test_the_budget_of_the_recipe_counts(recipe: Path) -> None:
    assert plan(recipe, gpu="24GB", overrides=["memory.budget=2GB"]).plan.budget_bytes == 2 * 10**9


def test_a_faulty_card_or_config_is_named(recipe: Path) -> None:
    with pytest.raises(UsageError, match="--gpu: 'B4000' is not a size"):
        plan(recipe, gpu="B4000")
    (recipe.parent / "base" / "config.json").write_text(json.dumps({**TINY, "hidden_size": "64"}))
    with pytest.raises(ModelError, match=r"base/config\.json: hidden_size is '64'"):
        plan(recipe, gpu="24GB")
