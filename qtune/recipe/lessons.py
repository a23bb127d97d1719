"""Whether a recipe's teacher is a folder of what one wrote before, and what that says of itself."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtune.artefacts import read_object
from qtune.errors import ModelError
from qtune.recipe.files import exists
from qtune.recipe.paths import is_local

if TYPE_CHECKING:
    from qtune.recipe.sections import Recipe

NOTES = "lessons.json"
VERSION = 1
_KEYS = {"complete": bool, "parts": dict, "temperature": float, "top": int, "width": int}


def lessons_of(recipe: Recipe) -> Path | None:
    """The folder that `qtune data teach` wrote, if loss.teacher names one."""
    name = recipe.loss.teacher
    if name is None or not is_local(name) or not exists(Path(name) / NOTES):
        return None
    return Path(name)


def read_notes(folder: Path) -> dict[str, Any]:
    """What a folder of lessons says of itself; `ModelError` where that is no such thing."""
    path = folder / NOTES
    notes = read_object(path)
    wrong = [key for key, kind in _KEYS.items() if not isinstance(notes.get(key), kind)]
    if notes.get("version") != VERSION or wrong:
        raise ModelError("was not written by this version of qtune", place=str(path))
    return notes


def content_hash(notes: dict[str, Any]) -> str:
    """sha256 of all that lessons hold: their facts and the checksums of their parts."""
    kept = {key: value for key, value in notes.items() if key != "teacher"}
    kept["teacher"] = notes["teacher"]["fingerprint"]
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()
