"""The recipes and fragments that come with qtune."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parent.parent

FRAGMENT_SECTIONS: dict[str, frozenset[str]] = {
    "model": frozenset({"model"}),
    "hardware": frozenset({"memory"}),
    "method": frozenset({"quantization", "method", "optim"}),
    "data": frozenset({"data", "loss"}),
}
"""configs/<folder>/*.yaml may set these sections only, so that one of each kind never clashes."""


def folder(kind: str) -> Path:
    """Where `recipes` or `configs` are: inside the package, or beside it in a source tree."""
    inside = _PACKAGE / kind
    return inside if inside.is_dir() else _PACKAGE.parent / kind


def recipes() -> list[str]:
    """Names of the shipped recipes."""
    return sorted(path.stem for path in folder("recipes").glob("*.yaml"))


def fragments() -> list[str]:
    """Names of the shipped fragments, as `extends` takes them."""
    root = folder("configs")
    return sorted(str(path.relative_to(root).with_suffix("")) for path in root.glob("*/*.yaml"))


def find_recipe(text: str) -> Path:
    """The file that a recipe argument names: a path, or else a shipped recipe's name."""
    path = Path(text)
    name = text.removeprefix("recipes/").removesuffix(".yaml")
    if name not in recipes() or path.exists():
        return path
    return folder("recipes") / f"{name}.yaml"
