"""What is told of local paths to those who have no such folders."""

from __future__ import annotations

from qtune.recipe.paths import portable


def test_portable_leaves_ids_alone() -> None:
    given = {"a": "owner/name", "b": ("/x/y", 1, None), "c": "./runs/z"}
    assert portable(given) == {"a": "owner/name", "b": ["y", 1, None], "c": "./runs/z"}
