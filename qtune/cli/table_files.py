"""The end of a command whose report is a table: a file of figures, one of text, a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtune.cli.output import news, print_json, wide_results
from qtune.durable import write_json, write_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rich.table import Table


def write_three(report: dict[str, Any], name: str, *, table: str, picture: str) -> list[str]:
    """name.json, name.md and name.svg in the folder of a report; returns their paths."""
    folder = Path(report["folder"])
    kept = {key: value for key, value in report.items() if key != "folder"}  # which may move
    write_json(folder / f"{name}.json", kept)
    write_text(folder / f"{name}.md", table)
    write_text(folder / f"{name}.svg", picture)
    return [str(folder / f"{name}.{kind}") for kind in ("json", "md", "svg")]


def show_wide(tables: Callable[[int], Iterable[Table]], said: Iterable[str]) -> None:
    """Tables for so many columns, as wide as the terminal or as a line of a log may be, and what
    to know of them."""
    console = wide_results()
    for each in tables(console.width):
        console.print(each)
    for line in said:
        console.print(line, markup=False, soft_wrap=True)


def tell(
    report: dict[str, Any],
    written: list[str],
    show: Callable[[dict[str, Any]], None],
    *,
    as_json: bool,
    quiet: bool,
) -> None:
    """The report on stdout, as JSON or as shown, and where it was written."""
    if as_json:
        print_json(report)
        return
    show(report)
    if not quiet:
        news().print(f"written to {', '.join(written)}", markup=False, soft_wrap=True)
