"""`qtune runs list`, `qtune runs show` and `qtune runs diff`: what became of runs. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qtune.cli.options import AsJson
from qtune.cli.output import print_json, results, wide_results
from qtune.cli.recipe_commands import shown_path
from qtune.recipe.writing import flow

if TYPE_CHECKING:
    from rich.table import Table

HELP = """See what became of runs, whatever state they are in.

Examples:
  qtune runs list
  qtune runs show runs/first
  qtune runs diff runs/first runs/second
"""
runs = typer.Typer(help=HELP, no_args_is_help=True, add_completion=False)
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]
STYLES = {"finished": "green", "damaged": "red", "failed": "red"}


@runs.command("list")
def list_(
    folder: Annotated[
        Path, typer.Argument(metavar="[FOLDER]", help="The folder that holds the runs.")
    ] = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """List the runs of a folder: state, steps, losses, speed, size of the adapter.

    Examples:
      qtune runs list
      qtune runs list experiments --json
    """
    from qtune.run.history import list_runs

    found = list_runs(folder)
    if as_json:
        print_json({"folder": str(folder), "runs": found})
    elif found:
        wide_results().print(overview(found))
    else:
        results().print(f"no runs in {folder}", markup=False)


@runs.command()
def show(run: RunFolder, as_json: AsJson = False) -> None:
    """Show one run: its recipe, plan, results and checkpoints.

    Examples:
      qtune runs show runs/first
    """
    from qtune.run.history import show_run

    shown = show_run(run)
    if as_json:
        print_json(shown)
        return
    console = results()
    wide_results().print(overview([shown]))
    for text in ([shown["reason"]] if shown["reason"] else []) + shown["faults"]:
        console.print(text, markup=False, soft_wrap=True)
    for part in (_pairs("recipe", shown["recipe"]), _pairs("plan", shown["plan"])):
        console.print(part)
    if shown["memory"]:
        console.print(_pairs("memory", shown["memory"]))
    if shown["shrunk"]:
        console.print(_rows("out of memory", shown["shrunk"]))
    if shown["evaluations"]:
        console.print(_rows("held out", shown["evaluations"]))
    if shown["gates"]:
        console.print(_rows("gates", shown["gates"]))
    if shown["checkpoints"]:
        console.print(_rows("checkpoints", shown["checkpoints"]))


@runs.command()
def diff(
    one: RunFolder,
    other: Annotated[Path, typer.Argument(metavar="RUN", help="Another run folder.")],
    as_json: AsJson = False,
) -> None:
    """Compare two runs: keys of the recipe, versions, measures side by side.

    Examples:
      qtune runs diff runs/first runs/second
    """
    from qtune.run.history import diff_runs

    found = diff_runs(one, other)
    if as_json:
        print_json(found)
        return
    console = results()
    for title in ("recipe", "versions", "measures"):
        if found[title]:
            console.print(_sides(title, found))
        elif not found["faults"]:
            console.print(f"{title}: no difference")
    for folder, faults in found["faults"].items():
        for fault in faults:
            console.print(f"{folder}: {fault}", markup=False, soft_wrap=True)


def overview(found: Sequence[dict[str, Any]]) -> Table:
    """A line for each run."""
    from rich.text import Text

    table = _table("run", "state", "steps", "loss", "best", "tokens/s", "adapter", "when (UTC)")
    for column in table.columns[2:]:
        column.no_wrap = True
    for one in found:
        state = one["state"]
        table.add_row(
            Text(one["name"]),
            Text(_told_state(one), style=STYLES.get(state, "yellow")),
            _steps(one),
            f"{_number(one['loss_first'])} → {_number(one['loss_last'])}",
            f"{one['best']['metric']} {_number(one['best']['value'])}" if one["best"] else "-",
            "-" if one["tokens_per_second"] is None else f"{one['tokens_per_second']:,.0f}",
            _bytes(one["adapter_bytes"]),
            (one["when"] or "-")[5:16].replace("T", " "),
        )
    return table


def _told_state(one: dict[str, Any]) -> str:
    failed = one["gates_failed"]
    if failed:
        return f"{failed} gate{'s' if failed > 1 else ''} failed"
    return str(one["state"])


def _steps(one: dict[str, Any]) -> str:
    done = "-" if one["step"] is None else f"{one['step']:,}"
    total = one["total_steps"]
    return done if total in (None, one["step"]) else f"{done} of {total:,}"


def _pairs(title: str, values: dict[str, Any]) -> Table:
    from rich.text import Text

    table = _table(title, "")
    for key, value in values.items():
        table.add_row(key, Text(_bytes(value) if key.endswith("bytes") else _value(value)))
    return table


def _rows(title: str, records: Sequence[dict[str, Any]]) -> Table:
    from rich.text import Text

    keys = list(dict.fromkeys(key for record in records for key in record))
    table = _table(title, *keys)
    for record in records:
        cells = [
            _bytes(record.get(key)) if key == "bytes" else _value(record.get(key)) for key in keys
        ]
        table.add_row("", *map(Text, cells))
    return table


def _sides(title: str, found: dict[str, Any]) -> Table:
    from rich.text import Text

    table = _table(title, *(Path(run).name or run for run in found["runs"]))
    for key, sides in found[title].items():
        shown = [_bytes(side) if key.endswith("bytes") else _value(side) for side in sides]
        table.add_row(key, *map(Text, shown))
    return table


def _value(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    return shown_path(value) if isinstance(value, str) else flow(value)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _bytes(value: Any) -> str:
    from qtune.plan import human

    return human(value) if isinstance(value, int) else "-"


def _table(*columns: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in columns:
        table.add_column(column)
    return table
