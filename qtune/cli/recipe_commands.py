"""`qtune validate`, `qtune show` and `qtune schema`: no torch, well under half a second."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qtune.cli.options import AsJson, Overrides
from qtune.cli.output import print_json, results
from qtune.errors import ExitCode, Fault, UsageError
from qtune.recipe import leaves, load
from qtune.recipe import schema as recipe_schema
from qtune.recipe.methods import BridgeConfig, parts_of
from qtune.recipe.unread import unread
from qtune.recipe.writing import flow

if TYPE_CHECKING:
    from qtune.recipe import Loaded, Recipe
    from qtune.recipe.methods import SingleMethod

_WIDTH = 80


def validate(
    recipes: Annotated[
        list[Path], typer.Argument(metavar="RECIPE...", help="Recipes, or names of shipped ones.")
    ],
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Check recipes and report every fault, without reading data or weights.

    Examples:
      qtune validate recipe.yaml
      qtune validate recipes/*.yaml --json
      qtune validate recipe.yaml --set optim.learning_rate=1e-4
    """
    faults: list[Fault] = []
    reports: list[dict[str, Any]] = []
    for recipe in recipes:
        try:
            loaded = load(recipe, overrides or ())
        except UsageError as error:
            faults.extend(error.faults)
            reports.append(_faulty_report(recipe, error))
        else:
            reports.append({"path": str(recipe), "valid": True, "faults": []})
            if not as_json:
                _print_valid(recipe, loaded.recipe)
    if as_json:
        print_json({"valid": not faults, "recipes": reports})
        raise typer.Exit(ExitCode.USAGE if faults else ExitCode.DONE)
    if faults:
        raise UsageError.of(faults)


def show(
    recipe: Annotated[Path, typer.Argument(help="A YAML recipe, or the name of a shipped one.")],
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Print every value of a recipe and where it comes from.

    Examples:
      qtune show recipe.yaml
      qtune show llama-8b-24gb --set method.rank=16
    """
    loaded = load(recipe, overrides or ())
    if as_json:
        print_json(_as_dict(loaded))
    else:
        _print_values(loaded)


def schema() -> None:
    """Print the JSON Schema of recipes: every key, its type, default and meaning.

    Examples:
      qtune schema > qtune.schema.json
    """
    print_json(recipe_schema())


def _faulty_report(recipe: Path, error: UsageError) -> dict[str, Any]:
    faults = [{"place": f.place, "message": f.message, "hint": f.hint} for f in error.faults]
    return {"path": str(recipe), "valid": False, "faults": faults}


def _print_valid(path: Path, recipe: Recipe) -> None:
    console = results()
    console.print(f"{path}: valid", markup=False, soft_wrap=True)
    console.print(f"  {summary(recipe)}", markup=False, soft_wrap=True, style="dim")


def _method(part: SingleMethod | BridgeConfig) -> str:
    rank = getattr(part, "rank", None)
    if isinstance(part, BridgeConfig):
        return f"peft {part.type}"
    return part.name if rank is None else f"{part.name} rank {rank}"


def summary(recipe: Recipe) -> str:
    """A recipe in one line."""
    method = " + ".join(_method(part) for part in parts_of(recipe.method))
    length = (
        f"steps {recipe.train.max_steps}"
        if recipe.train.max_steps is not None
        else f"epochs {recipe.train.num_train_epochs:g}"
    )
    parts = (
        shown_path(recipe.model.name_or_path),
        f"{recipe.quantization.bits} bits",
        method,
        f"learning rate {recipe.optim.learning_rate:g}",
        f"batch {recipe.train.batch_size}",
        length,
    )
    return ", ".join(parts)


def _as_dict(loaded: Loaded) -> dict[str, Any]:
    origins = {
        key: {"kind": origin.kind, "place": origin.place, "note": origin.note}
        for key, origin in loaded.origins.items()
    }
    return {
        "name": loaded.name,
        "path": str(loaded.path),
        "recipe": loaded.recipe.model_dump(mode="json"),
        "origins": origins,
    }


def _print_values(loaded: Loaded) -> None:
    console = results()
    idle = unread(loaded.recipe)
    section = ""
    for path, value in leaves(loaded.recipe):
        head, _, key = path.partition(".")
        if head != section:
            section = head
            console.print(section, style="bold")
        origin = loaded.origins[path]
        place = f"{origin}, not read" if path in idle else str(origin).removeprefix("configs/")
        style = "dim" if origin.kind == "default" else None
        for line in _lines(key, _shown(value), place):
            console.print(line, style=style, markup=False, soft_wrap=True)


def _lines(key: str, value: str, place: str) -> list[str]:
    """One key in one line, or its origin below the value where that would be too long."""
    line = f"  {key:<23} {value:<23} {place}"
    return [line] if len(line) <= _WIDTH else [f"  {key:<23} {value}", f"{'':<26}{place}"]


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, str):
        return shown_path(value) if value.isprintable() else json.dumps(value)
    return flow(value)


def shown_path(text: str) -> str:
    """A local path relative to the working directory where that is shorter."""
    if not Path(text).is_absolute():
        return text
    return min(text, os.path.relpath(text), key=len)
