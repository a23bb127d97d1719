"""`load`: a recipe file and its overrides to a frozen, fully checked Recipe."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from qtune.errors import Fault, QtuneError, UsageError
from qtune.recipe import overrides as command_line
from qtune.recipe import shipped
from qtune.recipe.check import check
from qtune.recipe.extends import read_file
from qtune.recipe.keys import leaves
from qtune.recipe.layers import Layer
from qtune.recipe.paths import localise

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qtune.recipe.sections import Recipe


_LONGEST = 300


@dataclass(frozen=True)
class Origin:
    """Where a value comes from: `place` is recipe.yaml:12 or --set a.b=c, empty for a default."""

    kind: Literal["file", "default", "override", "alias"]
    place: str = ""
    note: str = ""

    def __str__(self) -> str:
        text = self.place or "default"
        return f"{text}, {self.note}" if self.note else text


@dataclass(frozen=True)
class Loaded:
    """A recipe with the origin of every value: `optim.learning_rate`, `data.train.0.path`."""

    recipe: Recipe
    origins: dict[str, Origin]
    path: Path
    name: str


def load(path: str | Path, overrides: Sequence[str] = ()) -> Loaded:
    """Read a recipe; all its faults in one `UsageError`.

    `path` is a file or the name of a shipped recipe; `overrides` are `section.key=value`. Local
    inputs become absolute; `train.output_dir` stays relative to the working directory.
    """
    file = shipped.find_recipe(str(path))
    name = str(path) if file == Path(path) else f"recipes/{file.name}"
    faults: list[Fault] = []
    try:
        layer = read_file(file, name=name, faults=faults)
    except UsageError as error:
        raise _error(error.faults) from None
    layer = command_line.apply(layer, overrides, faults)
    localise(layer.settings)
    recipe = check(layer, faults, file=name)
    if faults or recipe is None:
        raise _error(faults)
    return Loaded(
        recipe=recipe,
        origins={key: _origin(key, layer) for key, _ in leaves(recipe)},
        path=file.resolve(),
        name=file.stem,
    )


def for_model(name_or_path: str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of a model alone, without data: for what is done with a model and some keys."""
    faults: list[Fault] = []
    settings = [f"model.name_or_path={json.dumps(name_or_path)}", "data.train=[{path: '-'}]"]
    layer = command_line.apply(Layer(), [*settings, *overrides], faults)
    localise(layer.settings)
    recipe = check(layer, faults, file=name_or_path)
    if faults or recipe is None:
        raise _error(faults)
    return recipe


def _error(faults: Sequence[Fault]) -> QtuneError:
    """All faults in the order of their lines, each told once."""
    return UsageError.of(sorted(dict.fromkeys(map(_one_line, faults)), key=_position))


def _one_line(fault: Fault) -> Fault:
    """The fault without line breaks, terminal codes and endless texts of the file in it."""
    return Fault(
        message=_printable(fault.message),
        place=_printable(fault.place),
        hint=_printable(fault.hint),
    )


def _printable(text: str) -> str:
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def _position(fault: Fault) -> tuple[bool, str, int]:
    """Faults of files in the order of their lines, those of the command line last."""
    file, _, line = fault.place.rpartition(":")
    numbered = line.isdecimal()
    of_command_line = fault.place.startswith("--set")
    return of_command_line, file if numbered else fault.place, int(line) if numbered else 0


def _origin(key: str, layer: Layer) -> Origin:
    node = layer.value_set(key)
    if node is None:
        return Origin("default")
    last = list(node.walk())[-1]  # a --set inside a list is the news
    node = last if last.source.kind == "override" else node
    if node.source.kind == "override":
        return Origin("override", node.label, node.note)
    return Origin("alias" if node.note else "file", node.label, node.note)
