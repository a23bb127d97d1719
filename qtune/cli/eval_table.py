"""What `qtune eval` found as tables: measures down, models across, then what each step changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SIDES = ("base16", "base", "adapter", "merged", "model")
TITLES = {"base16": "base, 16 bits", "merged": "merged"}
STEPS = ("quantization", "tuning", "merge")
_OF_ROWS = ("loss", "perplexity", "accuracy", "macro_f1", "matthews")
_SURE = 0.05
_ENDS = ("_low", "_high", "_p")
_NO_MEASURES = ("rows", "tokens")


def tables(report: dict[str, Any]) -> Iterator[Table]:
    """One table of measures; where more than two models stand in it, one of their differences."""
    sides = {side: report[side] for side in SIDES if side in report}
    steps = report.get("comparisons", {})
    columns = {_title(side, report): figures for side, figures in sides.items()}
    if not steps and "difference" in report:
        columns["difference"] = report["difference"]
    title = f"{report['rows']} rows" if report["rows"] else "tasks"
    yield _table(title, columns)
    if steps:
        named = {_step(step): steps[step] for step in STEPS if step in steps}
        yield _table("what changed it", named)


def _title(side: str, report: Mapping[str, Any]) -> str:
    if side == "base":
        return f"base ({report['base_model']})"
    return TITLES.get(side, side)


def _step(step: str) -> str:
    return {"quantization": "quantizing", "tuning": "the adapter", "merge": "merging"}[step]


def _table(title: str, columns: Mapping[str, Mapping[str, Any]]) -> Table:
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    made.add_column(title)
    for name in columns:
        made.add_column(name, justify="right")
    for label, path, name in _rows(columns):
        cells = (_cell(_at(figures, path), name) for figures in columns.values())
        made.add_row(label, *cells)
    return made


def _rows(columns: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, tuple[str, ...], str]]:
    """Label, place and name of each measure that some column has."""
    known = list(columns.values())
    for name in _OF_ROWS:
        if any(name in figures for figures in known):
            yield name.replace("_", " "), (), name
    for name in _measures([_at(figures, ("answers",)) for figures in known]):
        yield name.replace("_", " "), ("answers",), name
    tasks = dict.fromkeys(task for figures in known for task in figures.get("tasks", {}))
    for task in tasks:
        path = ("tasks", task)
        for name in _measures([_at(figures, path) for figures in known]):
            yield f"{task}: {name.replace('_', ' ')}", path, name


def _measures(figures: list[Mapping[str, Any]]) -> dict[str, None]:
    """The names of measures, without the ends of their intervals."""
    return {
        name: None
        for each in figures
        for name, value in each.items()
        if isinstance(value, float | int) and not name.endswith(_ENDS) and name not in _NO_MEASURES
    }


def _at(figures: Mapping[str, Any], path: tuple[str, ...]) -> Mapping[str, Any]:
    for step in path:
        figures = figures.get(step, {})
    return figures


def _cell(figures: Mapping[str, Any], name: str) -> str:
    """The figure, below it its interval (95 %); of a difference whether chance explains it."""
    if name not in figures:
        return ""
    value = f"{figures[name]:.4g}"
    if f"{name}_low" not in figures:
        return value
    low, high = figures[f"{name}_low"], figures[f"{name}_high"]
    chance = figures.get(f"{name}_p")
    sure = "" if chance is None else f"\np = {chance:.2g}"
    mark = " *" if chance is not None and chance < _SURE else ""
    return f"{value}{mark}\n{low:.4g} .. {high:.4g}{sure}"
