"""A recipe of another tool as a file in an empty folder, converted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qtune.recipe import load
from qtune.recipe.importing import Imported, convert

Convert = Callable[..., Imported]


@pytest.fixture(autouse=True)
def _working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def converted() -> Convert:
    """A text as a file, converted, written and loaded again, which must be the same recipe."""

    def converted(text: str, name: str = "theirs.yaml", **options: Any) -> Imported:
        Path(name).write_text(text)
        made = convert(name, **options)
        Path("ours").mkdir(exist_ok=True)
        Path("ours/recipe.yaml").write_text(made.text(Path("ours")))
        assert load("ours/recipe.yaml").recipe == made.recipe
        return made

    return converted
