"""`qtune eval`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table

from qtune.cli.gates import exit_by_gates
from qtune.cli.offline import obey_offline
from qtune.cli.options import AsJson, BaseModel, Overrides, Quietly, Thing
from qtune.cli.output import print_json, results
from qtune.cli.screen import showing

SIDES = ("adapter", "base", "model")
MEASURES = ("loss", "perplexity", "accuracy", "macro_f1", "matthews")
MOST_CONFUSED = 5
SCORES = ("exact_match", "token_f1", "stopped")


def evaluate(  # noqa: PLR0913 - one parameter an option
    thing: Thing,
    against: Annotated[
        str | None,
        typer.Argument(
            metavar="[RECIPE|DATA]",
            help="Rows to measure on: of a recipe, or a data file; else the run's held-out rows.",
        ),
    ] = None,
    overrides: Overrides = None,
    base: BaseModel = None,
    rows: Annotated[int | None, typer.Option(min=1, help="Only the first rows.")] = None,
    generate: Annotated[
        int | None, typer.Option(min=0, help="Answer so many rows by greedy decoding.")
    ] = None,
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="The longest answer.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The report; else eval.json of the run.")
    ] = None,
    gates: Annotated[
        bool, typer.Option("--gates", help="Judge the recipe's gates on held-out measures; exit 9.")
    ] = False,
    as_json: AsJson = False,
    quiet: Quietly = False,
) -> None:
    """Measure a run, an adapter or a model: loss, perplexity, answers, each with its interval;
    of a classification accuracy, macro-F1, Matthews correlation and what it confuses.

    An adapter is measured beside its base in the same process, on the same rows.

    Examples:
      qtune eval runs/first
      qtune eval runs/first test.jsonl --generate 200
      qtune eval runs/first --gates --set gates.min_exact_match=0.9
      qtune eval merged/ recipe.yaml --json
    """
    for named in (thing, against):
        obey_offline(named, overrides)
    from qtune.run.bench import Limits
    from qtune.run.eval import evaluate as run

    with showing("qtune eval", quiet=quiet) as display:
        report = run(
            thing,
            against,
            base=base,
            overrides=overrides or (),
            limits=Limits(rows=rows, generate=generate, max_new_tokens=max_new_tokens, gates=gates),
            output=output,
            display=display,
        )
    if as_json:
        print_json(report)
    else:
        results().print(table(report))
        if line := confusions(report):
            results().print(line, markup=False, highlight=False)
    exit_by_gates(report)


def table(report: dict[str, Any]) -> Table:
    """Measures down, models across, the paired difference last; intervals hold 95 %."""
    sides = [side for side in SIDES if side in report]
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    made.add_column(f"{report['rows']} rows")
    for side in sides:
        title = f"base ({report['base_model']})" if side == "base" else side
        made.add_column(title, justify="right")
    paired = "difference" in report
    if paired:
        made.add_column("difference", justify="right")
    for name in (name for name in MEASURES if name in report[sides[0]]):
        columns = [report[side] for side in sides]
        columns += [report["difference"]] if paired else []
        made.add_row(name.replace("_", " "), *(_cell(column, name) for column in columns))
    if all("answers" in report[side] for side in sides):
        for name in SCORES:
            columns = [report[side]["answers"] for side in sides]
            columns += [report["difference"]["answers"]] if paired else []
            made.add_row(name.replace("_", " "), *(_cell(column, name) for column in columns))
    return made


def confusions(report: dict[str, Any]) -> str:
    """The labels that a classifier takes for one another most often; empty without any."""
    side = report.get("adapter") or report.get("model") or {}
    most = side.get("confused", ())[:MOST_CONFUSED]
    told = [f"{pair['label']} as {pair['given']} ({pair['rows']})" for pair in most]
    return f"taken for another: {', '.join(told)}" if told else ""


def _cell(figures: dict[str, Any], name: str) -> str:
    if name not in figures:
        return ""
    if f"{name}_low" not in figures:
        return f"{figures[name]:.4g}"
    low, high = figures[f"{name}_low"], figures[f"{name}_high"]
    return f"{figures[name]:.4g}\n{low:.4g} .. {high:.4g}"
