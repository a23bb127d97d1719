"""`qtune eval`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from qtune.cli.output import print_json, results

SIDES = ("adapter", "base", "model")
MEASURES = ("loss", "perplexity")
SCORES = ("exact_match", "token_f1", "stopped")


def evaluate(  # noqa: PLR0913 - one parameter an option
    thing: Annotated[str, typer.Argument(help="A run folder, an adapter folder or a model.")],
    against: Annotated[
        str | None,
        typer.Argument(
            metavar="[RECIPE|DATA]",
            help="Rows to measure on: of a recipe, or a data file; else the run's held-out rows.",
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Over the recipe.")
    ] = None,
    base: Annotated[
        str | None,
        typer.Option("--base-model", help="The base model of an adapter, when it lies elsewhere."),
    ] = None,
    rows: Annotated[int | None, typer.Option(min=1, help="Only the first rows.")] = None,
    generate: Annotated[
        int | None, typer.Option(min=0, help="Answer so many rows by greedy decoding.")
    ] = None,
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="The longest answer.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The report; else eval.json of the run.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No news on stderr.")] = False,
) -> None:
    """Measure a run, an adapter or a model: loss, perplexity, answers, each with its interval.

    An adapter is measured beside its base in the same process, on the same rows.

    Examples:
      qtune eval runs/first
      qtune eval runs/first test.jsonl --generate 200
      qtune eval merged/ recipe.yaml --json
    """
    from qtune.cli.train_command import make_display
    from qtune.run.display import Quiet
    from qtune.run.eval import Limits
    from qtune.run.eval import evaluate as run

    display = Quiet() if quiet else make_display()
    try:
        report = run(
            thing,
            against,
            base=base,
            overrides=overrides or (),
            limits=Limits(rows=rows, generate=generate, max_new_tokens=max_new_tokens),
            output=output,
            display=display,
        )
    finally:
        display.close()
    if as_json:
        print_json(report)
    else:
        results().print(table(report))


def table(report: dict[str, Any]) -> Table:
    """Measures down, models across, the paired difference last; intervals hold 95 %."""
    sides = [side for side in SIDES if side in report]
    made = Table(title=f"{report['thing']}: {report['rows']} rows", title_justify="left")
    made.add_column("measure")
    for side in sides:
        made.add_column(f"base ({report['base_model']})" if side == "base" else side)
    paired = "difference" in report
    if paired:
        made.add_column("difference")
    for name in MEASURES:
        columns = [report[side] for side in sides]
        columns += [report["difference"]] if paired else []
        made.add_row(name, *(_cell(column, name) for column in columns))
    if all("answers" in report[side] for side in sides):
        for name in SCORES:
            columns = [report[side]["answers"] for side in sides]
            columns += [report["difference"]["answers"]] if paired else []
            made.add_row(name.replace("_", " "), *(_cell(column, name) for column in columns))
    return made


def _cell(figures: dict[str, Any], name: str) -> str:
    if name not in figures:
        return ""
    low, high = figures[f"{name}_low"], figures[f"{name}_high"]
    return f"{figures[name]:.4g} [{low:.4g}, {high:.4g}]"
