"""Files that are YAML but no recipe, told in one line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtune.errors import UsageError
from qtune.recipe.aliases import is_foreign
from qtune.recipe.files import MINIMAL
from qtune.recipe.keys import SECTIONS

if TYPE_CHECKING:
    from qtune.recipe.node import Node


def top_level(root: Node) -> dict[str, Node]:
    """The top-level keys of a recipe; `UsageError` if the file holds something else."""
    name = root.source.name
    if root.value is None:
        raise UsageError("an empty file, not a recipe", place=name, hint=MINIMAL)
    if not isinstance(root.value, dict):
        what = "a list" if isinstance(root.value, list) else f"only {_short(root.value)}"
        raise UsageError(f"holds {what}, not a recipe", place=name, hint=MINIMAL)
    keys = root.value
    if any("_component_" in (n.value if isinstance(n.value, dict) else ()) for n in keys.values()):
        raise UsageError("a torchtune configuration, not a recipe", place=name, hint=_convert(name))
    if any("class_path" in (n.value if isinstance(n.value, dict) else ()) for n in keys.values()):
        raise UsageError("a litgpt configuration, not a recipe", place=name, hint=_convert(name))
    if not any(key in SECTIONS or key == "extends" or is_foreign(key) for key in keys):
        raise UsageError(_none_known(keys), place=name, hint=MINIMAL)
    return keys


def _convert(name: str) -> str:
    return f"convert it: qtune import {name}"


def _none_known(keys: dict[str, Node]) -> str:
    shown = ", ".join(list(keys)[:4])
    return (
        f"not a recipe: its keys ({shown}{', ...' if len(keys) > 4 else ''}) are none of a recipe"
    )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
