"""`qtune compare`: every cell that is missing, then the table of all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtune import recipe
from qtune.errors import UsageError
from qtune.run.comparison.cells import Cells, Row, rows_of
from qtune.run.comparison.entries import Given, entries, references, without_folder
from qtune.run.comparison.gather import gather
from qtune.runs import past

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qtune.recipe import Recipe
    from qtune.run.comparison.entries import Entry
    from qtune.run.display import Display

DEFAULT_FOLDER = "compare"


def compare_methods(
    path: Path,
    words: Sequence[str],
    *,
    seeds: int,
    output: Path | None,
    overrides: Sequence[str] = (),
    display: Display,
) -> tuple[dict[str, Any], int]:
    """Train each method of `words` under one recipe with each seed, and measure all; returns the
    report and the exit code: that of the first refusal when no method got through."""
    given = Given.read(path, overrides)
    chosen = entries(given, words)
    asked = given.loaded.recipe
    bases = list(references(asked))
    total = len(bases) + len(chosen) * (seeds + 1)
    cells = Cells(output or Path(DEFAULT_FOLDER) / given.loaded.name, display, total=total)
    first = asked.train.seed
    with cells.held():
        rows = _bases(cells, bases)
        for entry, row in zip(chosen, rows_of(chosen), strict=True):
            rows.append(row)
            _method(cells, row, entry.asked, range(first, first + seeds))
        report = gather(rows, asked, name=given.loaded.name)
    return report | {"folder": str(cells.folder)}, _code(rows)


def compare_runs(
    folders: Sequence[Path], *, output: Path | None, display: Display
) -> tuple[dict[str, Any], int]:
    """Measure finished runs side by side, and the base of the first one."""
    recipes = [_recipe(folder) for folder in folders]
    labels = [folder.resolve().name for folder in folders]
    for label in labels:
        if labels.count(label) > 1:
            raise UsageError(f"two runs are called {label}", hint="rename one of their folders")
    bases = list(references(recipes[0]))
    place = output or Path(DEFAULT_FOLDER) / "-".join(labels)[:80]
    cells = Cells(place, display, total=len(bases) + len(folders))
    with cells.held():
        rows = _bases(cells, bases)
        for label, folder, asked in zip(labels, folders, recipes, strict=True):
            row = Row(label, "run", runs=[folder])
            cells.cost(row, without_folder(asked), folder)
            rows.append(row)
        report = gather(rows, recipes[0], name="-".join(labels))
    return report | {"folder": str(cells.folder)}, _code(rows)


def _bases(cells: Cells, bases: list[Entry]) -> list[Row]:
    rows = rows_of(bases)
    for row, entry in zip(rows, bases, strict=True):
        assert entry.asked is not None
        cells.cost(row, entry.asked, None)
    return rows


def _method(cells: Cells, row: Row, asked: Recipe | None, seeds: range) -> None:
    """All cells of one method; a refusal ends them, for its other seeds would meet it, too."""
    left = len(seeds) + 1
    for seed in seeds:
        if asked is None or row.fault is not None:
            break
        cells.train(row, asked, seed)
        left -= 1
    if asked is None or row.fault is not None:
        cells.skip(left)
        return
    cells.cost(row, asked, row.runs[0])


def _code(rows: Sequence[Row]) -> int:
    """0 when anything that was to be compared got through."""
    compared = [row for row in rows if row.kind != "base"]
    refused = [row.code for row in compared if row.fault is not None]
    return refused[0] if len(refused) == len(compared) else 0


def _recipe(folder: Path) -> Recipe:
    """The recipe of a finished run; `UsageError` for anything else."""
    if not folder.is_dir():
        raise UsageError(
            "not a run folder",
            place=str(folder),
            hint="a recipe is compared with --methods lora,dylora,...",
        )
    if not past.is_run(folder) or past.look(folder).state != "finished":
        hint = "train it to its end first: qtune runs show tells how far it is"
        raise UsageError("not a finished run", place=str(folder), hint=hint)
    return recipe.load(folder / past.RECIPE).recipe
