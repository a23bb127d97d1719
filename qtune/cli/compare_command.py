"""`qtune compare`, and `qtune cost`, the piece of it that is a process of its own."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qtune.cli.offline import obey_offline
from qtune.cli.options import AsJson, Overrides, Quietly
from qtune.cli.output import print_json
from qtune.cli.screen import showing
from qtune.cli.table_files import show_wide, tell, write_three
from qtune.durable import write_json
from qtune.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qtune.run.display import Display


def compare(
    things: Annotated[
        list[Path], typer.Argument(metavar="RECIPE|RUN...", help="A recipe, or finished runs.")
    ],
    methods: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,...", help="Methods to train: names, fragments (method/qlora) or files."
        ),
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Runs of each method (1).")] = None,
    overrides: Overrides = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The folder; else compare/<name>. It is gone on with."),
    ] = None,
    as_json: AsJson = False,
    quiet: Quietly = False,
) -> None:
    """Compare methods, or runs: storage, memory, compute, accuracy, inference overhead.

    Each method is trained under the same recipe, with the same rows in the same order; keys that
    it shares with the recipe's method (such as rank) keep the recipe's value. A fragment or a file
    also brings what it says of optim and quantization. Each run has a process of its own. What is
    finished is not run again. In the folder: compare.json, compare.md, compare.svg.

    Examples:
      qtune compare recipe.yaml --methods lora,dylora,adalora --seeds 3
      qtune compare recipe.yaml --methods lora,method/prompt,mine.yaml -o first
      qtune compare runs/first runs/second
    """
    obey_offline(things[0], overrides)
    with showing("qtune compare", quiet=quiet) as display:
        if methods is None:
            report, code = _runs(things, seeds, overrides, output, display)
        else:
            report, code = _methods(things, methods, seeds, overrides, output, display)
    tell(report, write(report), show, as_json=as_json, quiet=quiet)
    raise typer.Exit(code)


def cost(
    recipe: Annotated[Path, typer.Argument(help="A recipe with held-out rows.")],
    run: Annotated[Path | None, typer.Option(help="A run; else the base alone.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The report.")] = None,
    as_json: AsJson = False,
    quiet: Quietly = False,
) -> None:
    """Measure what using a run costs: memory, FLOPs, seconds a token beside its base and merged.

    Examples:
      qtune cost recipe.yaml --run runs/first
    """
    obey_offline(recipe)
    from qtune.run.comparison.cost import measure_cost

    with showing("qtune cost", quiet=quiet) as display:
        report = measure_cost(recipe, run, display=display)
    if output is not None:
        write_json(output, report)
    if as_json or output is None:
        print_json(report)


def _methods(
    things: Sequence[Path],
    methods: str,
    seeds: int | None,
    overrides: Sequence[str] | None,
    output: Path | None,
    display: Display,
) -> tuple[dict[str, Any], int]:
    if len(things) > 1:
        raise UsageError("--methods takes one recipe", place=str(things[1]), hint="remove it")
    from qtune.run.comparison.compare import compare_methods

    return compare_methods(
        things[0],
        [word.strip() for word in methods.split(",") if word.strip()],
        seeds=seeds or 1,
        output=output,
        overrides=overrides or (),
        display=display,
    )


def _runs(
    things: Sequence[Path],
    seeds: int | None,
    overrides: Sequence[str] | None,
    output: Path | None,
    display: Display,
) -> tuple[dict[str, Any], int]:
    if seeds is not None or overrides:
        option = "--set" if seeds is None else "--seeds"
        raise UsageError(f"{option} belongs to --methods", hint="finished runs are compared as is")
    from qtune.run.comparison.compare import compare_runs

    return compare_runs(things, output=output, display=display)


def write(report: dict[str, Any]) -> list[str]:
    """The three files of a comparison; returns their paths."""
    from qtune.cli.compare_picture import comparison_svg, panels
    from qtune.cli.compare_table import columns, markdown, remarks

    table = markdown(report, columns(report), remarks(report))
    picture = comparison_svg(report, panels(report))
    return write_three(report, "compare", table=table, picture=picture)


def show(report: dict[str, Any]) -> None:
    """The table, and what to know of it."""
    from qtune.cli.compare_table import remarks, tables

    show_wide(partial(tables, report), remarks(report))
