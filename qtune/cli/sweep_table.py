"""A sweep as a table: what was varied, then what came of it, the best on top."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtune.cli.compare_picture import Panel, measure
from qtune.cli.compare_table import Column, count, told_of_runs
from qtune.cli.compare_table import measure as measure_column
from qtune.plan import duration, human
from qtune.run.sweeping.axes import short_names, shown

if TYPE_CHECKING:
    from collections.abc import Iterator


def columns(report: dict[str, Any]) -> list[Column]:
    """The varied keys, the measures with the deciding one first, speed, memory and time."""
    names = short_names(list(report["over"]))
    return [
        *(_setting(key, name) for key, name in names.items()),
        *(measure_column(name) for name in report["measures"]),
        Column("training\ntokens/s", lambda row: row["compute"]["tokens_per_second"], count),
        Column("memory,\ntraining", lambda row: row["memory"]["training_peak_bytes"], human),
        Column("adapter", lambda row: row["storage"]["adapter_bytes"], human),
        Column("training\ntime", _seconds, duration),
    ]


def numbered(report: dict[str, Any]) -> dict[str, Any]:
    """The report with places for names, which the columns tell: 1, 2, ...; - for a refused row."""
    places = ["-" if row["reason"] else str(n) for n, row in enumerate(report["rows"], 1)]
    rows = [row | {"name": place} for row, place in zip(report["rows"], places, strict=True)]
    return report | {"rows": rows}


def remarks(report: dict[str, Any]) -> Iterator[str]:
    """What a reader must know: the order, the budget, refusals, notes, the best."""
    yield f"ordered by {report['metric']}, {report['better']} is better"
    yield from told_of_runs(report)
    for row in report["rows"]:
        if row["gates_failed"]:
            yield f"{row['name']}: gates failed: {row['gates_failed']}"
    yield from report["notes"]
    if report["best"] is not None:
        settings = " ".join(f"--set {each}" for each in report["best"]["settings"])
        yield f"best: {settings}"


def panels(report: dict[str, Any]) -> list[Panel]:
    """The measures, speed and memory."""
    return [
        *map(measure, report["measures"]),
        Panel("speed", "tokens/s, training", lambda row: row["compute"]["tokens_per_second"]),
        Panel("memory", "bytes, training", lambda row: row["memory"]["training_peak_bytes"]),
    ]


def _setting(key: str, name: str) -> Column:
    return Column(name, lambda row: shown(row["settings"][key]), str)


def _seconds(row: dict[str, Any]) -> float | None:
    """Of all seeds together, whatever stopped them."""
    return sum(seed["training_seconds"] or 0.0 for seed in row["seeds"]) or None
