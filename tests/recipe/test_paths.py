"""What is told of local paths to those who have no such folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from qtune.errors import UsageError
from qtune.recipe import load, to_yaml
from qtune.recipe.paths import portable


def test_portable_leaves_ids_alone() -> None:
    given = {"a": "owner/name", "b": ("/x/y", 1, None), "c": "./runs/z"}
    assert portable(given) == {"a": "owner/name", "b": ["y", 1, None], "c": "./runs/z"}


def template_of(folder: Path, value: str) -> str | None:
    """The chat template of a recipe in `folder`, written out and read again on the way."""
    lines = (
        f"model: {{name_or_path: a/b, chat_template: {value}}}\ndata: {{train: [{{path: a/b}}]}}"
    )
    (folder / "recipe.yaml").write_text(lines)
    first = load(folder / "recipe.yaml").recipe
    (folder / "run").mkdir(exist_ok=True)
    written = to_yaml(first, relative_to=folder / "run")
    assert str(folder) not in written
    (folder / "run" / "recipe.yaml").write_text(written)
    assert load(folder / "run" / "recipe.yaml").recipe == first
    return first.model.chat_template


def test_a_template_file_is_relative_to_the_recipe(tmp_path: Path) -> None:
    assert template_of(tmp_path, "own.jinja") == str(tmp_path / "own.jinja")
    assert template_of(tmp_path, "./x/own.jinja") == str(tmp_path / "x" / "own.jinja")


def test_a_file_of_labels_is_relative_to_the_recipe(tmp_path: Path) -> None:
    source = "{path: a/b, format: classification, labels: names.txt}"
    text = f"model: {{name_or_path: a/b}}\ndata: {{train: [{source}]}}"
    (tmp_path / "recipe.yaml").write_text(text)
    first = load(tmp_path / "recipe.yaml").recipe
    assert first.data.train[0].labels == str(tmp_path / "names.txt")
    (tmp_path / "run").mkdir()
    written = to_yaml(first, relative_to=tmp_path / "run")
    assert "labels: ../names.txt" in written
    (tmp_path / "run" / "recipe.yaml").write_text(written)
    assert load(tmp_path / "run" / "recipe.yaml").recipe == first


def test_a_built_in_template_and_a_text_are_no_paths(tmp_path: Path) -> None:
    (tmp_path / "chatml").mkdir()
    assert template_of(tmp_path, "chatml") == "chatml"
    assert template_of(tmp_path, '"{{ a }}.jinja"') == "{{ a }}.jinja"


@pytest.mark.parametrize(
    ("name", "hint"), [("chatlm", "did you mean chatml?"), ("x", "one of alpaca, chatml, gemma")]
)
def test_an_unknown_template_is_told_with_the_nearest(tmp_path: Path, name: str, hint: str) -> None:
    with pytest.raises(UsageError, match=f"model.chat_template: '{name}' is no built-in") as caught:
        template_of(tmp_path, name)
    assert hint in str(caught.value)
    assert caught.value.faults[0].place.endswith("recipe.yaml:1")
