"""A comparison as a table: one line a method, its columns in the order of the five axes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qtune.cli.markdown import markdown_table
from qtune.plan import human
from qtune.recipe.results import SMALLER_IS_BETTER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from rich.table import Table

_OF_TRAINING = 5  # columns
_STYLES = {"base": "dim"}


@dataclass(frozen=True)
class Column:
    """A column: its title in two lines, and the number of a row with how it is written."""

    title: str
    value: Callable[[dict[str, Any]], Any]
    told: Callable[[Any], str]


def columns(report: dict[str, Any]) -> list[Column]:
    """The columns of a report: measures stand there by the names that they were taken under."""
    return [
        Column("adapter", lambda row: row["storage"]["adapter_bytes"], human),
        Column("memory,\ntraining", lambda row: row["memory"]["training_peak_bytes"], human),
        Column("memory,\nin use", lambda row: row["memory"]["inference_peak_bytes"], human),
        Column("training\ntokens/s", lambda row: row["compute"]["tokens_per_second"], count),
        Column("training\nFLOPs/token", _flops, _short),
        *(measure(name) for name in report["measures"]),
        Column("ms a\ntoken", lambda row: row["inference"]["seconds_per_token"], _ms),
        Column("over\nbase", lambda row: row["inference"]["overhead"], _percent),
        Column("ms,\nmerged", lambda row: row["inference"]["merged_seconds_per_token"], _ms),
    ]


def tables(report: dict[str, Any], width: int) -> list[Table]:
    """One for a terminal that is wide enough, else two: what training takes, and what comes of
    it."""
    from rich.console import Console

    shown = columns(report)
    whole = table(report, shown)
    if Console(width=10 * width).measure(whole).maximum <= width:
        return [whole]
    return [table(report, shown[:_OF_TRAINING]), table(report, shown[_OF_TRAINING:])]


def table(report: dict[str, Any], shown: list[Column]) -> Table:
    """For a terminal; of each measure the best is bold."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    made.add_column("", no_wrap=True)
    best = {name: _best(report, name) for name in report["measures"]}
    for column in shown:
        made.add_column(column.title, justify="right", no_wrap=True)
    for row in report["rows"]:
        cells = [
            Text(cell, style="bold" if best.get(column.title.split("\n")[0]) == row["name"] else "")
            for column, cell in zip(shown, _cells(row, shown), strict=True)
        ]
        made.add_row(Text(row["name"]), *cells, style=_STYLES.get(row["kind"], ""))
    return made


def markdown(report: dict[str, Any], shown: list[Column], said: Iterable[str]) -> str:
    """The same for a page, with its remarks."""
    head = ["", *(column.title.replace("\n", " ") for column in shown)]
    lines = markdown_table(head, ([row["name"], *_cells(row, shown)] for row in report["rows"]))
    told = "\n".join(f"- {line}" for line in said)
    return f"## {report['name']}\n\n{lines}\n\n{told}\n"


def remarks(report: dict[str, Any]) -> Iterator[str]:
    """What a reader must know: the budget, refusals, notes."""
    yield from told_of_runs(report)
    apart = [row["name"] for row in report["rows"] if row["inference"]["not_merged"]]
    if apart:
        yield f"not merged: {', '.join(apart)}"
    yield from report["notes"]


def told_of_runs(report: dict[str, Any]) -> Iterator[str]:
    """The budget of the runs, and the rows that were refused."""
    budget = next((row["seeds"][0] for row in report["rows"] if row["seeds"]), None)
    if budget is not None:
        seeds = report["seeds"]
        spread = f"; ± is the deviation over {seeds} seeds" if seeds > 1 else ", one seed"
        yield f"each run: {budget['steps']:,} steps, {budget['tokens']:,} tokens{spread}"
    for row in report["rows"]:
        if row["reason"]:
            yield f"{row['name']}: {row['reason']}"


def _cells(row: dict[str, Any], shown: list[Column]) -> list[str]:
    values = [(column, column.value(row)) for column in shown]
    return ["-" if value is None else column.told(value) for column, value in values]


def measure(name: str) -> Column:
    """A held-out measure, with its spread."""
    return Column(f"{name.replace('_', ' ')}\nheld out", lambda row: row["accuracy"].get(name), _pm)


def _best(report: dict[str, Any], name: str) -> str | None:
    """The row with the best mean; the bases do not take part."""
    found = {
        row["name"]: row["accuracy"][name]["mean"]
        for row in report["rows"]
        if name in row["accuracy"] and row["kind"] != "base"
    }
    pick = min if name in SMALLER_IS_BETTER else max
    return pick(found, key=lambda label: found[label]) if len(found) > 1 else None


def _flops(row: dict[str, Any]) -> float | None:
    value: float | None = row["compute"]["training_flops_per_token"]
    return value


def _pm(figures: dict[str, Any]) -> str:
    deviation = figures["deviation"]
    return f"{figures['mean']:.3f}" + ("" if deviation is None else f" ± {deviation:.3f}")


def count(value: float) -> str:
    """1,234."""
    return f"{value:,.0f}"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.3g}"


def _percent(share: float) -> str:
    return f"{share:+.0%}"


def _short(value: float) -> str:
    """1.95M, 48.6G."""
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"
