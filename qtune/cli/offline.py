"""model.offline, obeyed before anything that could reach for the network is imported."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtune import hub
from qtune.errors import QtuneError
from qtune.recipe import load

if TYPE_CHECKING:
    from collections.abc import Sequence


def obey_offline(thing: str | Path | None, overrides: Sequence[str] | None = None) -> None:
    """Go offline if a recipe, or the recipe of a run or of its adapter, says so."""
    if thing is None:
        return
    path = _recipe_of(Path(thing))
    if path is None:
        return
    try:
        asked = load(path, overrides or ()).recipe
    except QtuneError:
        return  # the command itself tells
    if asked.model.offline:
        hub.go_offline()


def _recipe_of(path: Path) -> Path | None:
    if not path.is_dir():
        return None if path.is_file() and path.suffix not in (".yaml", ".yml") else path
    for folder in (path, path.parent):
        if (folder / "recipe.yaml").is_file():
            return folder / "recipe.yaml"
    return None
