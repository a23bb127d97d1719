"""`qtune import`: another tool's recipe, converted and written down."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtune import hub
from qtune.artefacts import read_object
from qtune.durable import write_bytes
from qtune.errors import OutputError, QtuneError
from qtune.plan.published import published_config
from qtune.recipe import shipped
from qtune.recipe.importing import Imported, convert

if TYPE_CHECKING:
    from collections.abc import Mapping

# What conversions put behind a model's own name.
_SUFFIX = re.compile(r"-(bf16|fp16|4bit|8bit|6bit|3bit|mlx|bnb-4bit|unsloth-bnb-4bit)$", re.I)


def import_recipe(given: str, *, output: Path | None = None, devices: int = 1) -> Imported:
    """Convert a file or a command line; with `output` the recipe is written there.

    Raises `OutputError` for a file that exists: nothing is overwritten.
    """
    if output is not None:
        refuse_existing(output)
    made = convert(given, devices=devices, layers_of=layers_of)
    if output is not None:
        write_new(output, made.text(output.parent))
    return made


def refuse_existing(path: Path) -> None:
    """Raise `OutputError` when there is something under the name of a new file."""
    if path.exists():
        hint = "nothing is overwritten: name another file with -o"
        raise OutputError("exists already", place=str(path), hint=hint)


def write_new(path: Path, text: str) -> None:
    """Write a file that is not there yet, and the folders above it."""
    refuse_existing(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, text.encode())


def as_dict(made: Imported, *, output: Path | None) -> dict[str, Any]:
    """Plain values for JSON."""
    folder = Path() if output is None else output.parent
    left = [
        {"key": one.key, "value": one.value, "line": one.line, "kind": one.kind}
        | {"reason": one.reason}
        for one in made.left
    ]
    return {
        "tool": made.tool,
        "from": made.origin,
        "output": None if output is None else str(output),
        "values": made.values(),
        "to_look_at": list(made.remarks),
        "not_taken_over": left,
        "yaml": made.text(folder),
    }


def layers_of(model: str) -> int | None:
    """How many layers a model has, as far as this machine knows without a network."""
    config: Mapping[str, Any] | None = None
    try:
        folder = hub.local_folder(model)
        if folder is not None:
            config = read_object(folder / "config.json")
    except QtuneError:
        return None
    if config is None:
        config = published_config(model) or _of_a_copy(model)
    number = (config or {}).get("num_hidden_layers")
    return number if type(number) is int else None


def _of_a_copy(model: str) -> dict[str, Any] | None:
    """The sizes of the model whose name a conversion by another owner bears."""
    name = _SUFFIX.sub("", model.rpartition("/")[2])
    known: dict[str, dict[str, Any]] = json.loads(
        (shipped.folder("configs") / "shapes.json").read_text()
    )
    return next((sizes for each, sizes in known.items() if each.rpartition("/")[2] == name), None)
