"""`qtune methods`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from qtune.cli.markdown import markdown_table
from qtune.cli.options import AsJson
from qtune.cli.output import print_json, print_text, wide_results

if TYPE_CHECKING:
    from rich.table import Table

_COLUMNS = ("method", "trains", "parameters", "saves", "merges", "4-bit", "paper")
_LOG_WIDTH = 150


def methods(
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="Print a Markdown table.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List every method: what it trains and saves, whether it merges and works on 4 bits.

    Examples:
      qtune methods
      qtune methods --markdown
      qtune methods --json
    """
    from qtune.run.methods import list_methods

    listed = list_methods()
    if as_json:
        print_json(listed)
    elif as_markdown:
        print_text(markdown_table(_COLUMNS, map(_cells, listed["methods"])))
        print_text(f"\n{_legend(listed)}")
    else:
        show(listed)


def show(listed: dict[str, Any]) -> None:
    """The table, as wide as the terminal or as a line of a log may be, and its notes."""
    console = wide_results(_LOG_WIDTH)
    console.print(table(listed))
    for one in listed["methods"]:
        if one["note"]:
            console.print(f"{one['name']}: {one['note']}", markup=False)
    console.print(_legend(listed), style="dim", markup=False)


def table(listed: dict[str, Any]) -> Table:
    """A line a method."""
    from rich import box
    from rich.table import Table

    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in _COLUMNS:
        made.add_column(column, no_wrap=column not in ("trains", "paper"))
    made.columns[_COLUMNS.index("parameters")].justify = "right"
    for one in listed["methods"]:
        made.add_row(*_cells(one))
    return made


def _cells(one: dict[str, Any]) -> list[str]:
    return [
        one["name"],
        one["trains"],
        _count(one["parameters"]),
        one["saves"],
        _word(one["merges"]),
        _word(one["four_bit"]),
        one["paper"],
    ]


def _word(value: bool | None) -> str:
    return "depends" if value is None else "yes" if value else "no"


def _count(number: int | None) -> str:
    if number is None:
        return "-"
    return f"{number / 1e6:,.3g}M" if number >= 1e6 else f"{number:,}"


def _legend(listed: dict[str, Any]) -> str:
    return f"parameters: with the defaults of each, on {listed['reference']}"
