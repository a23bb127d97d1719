"""Held-out measures as tables: along the run, and those that `qtune eval` took, with intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtune.run.pages.fragments import Raw, number, table, with_interval

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qtune.run.pages.fragments import Cell
    from qtune.run.pages.told import Record, Told

_MOST_COLUMNS = 7
ENDS = ("_low", "_high")
_SIDES = ("base_16bit", "base", "base_nf4", "model", "adapter", "merged", "difference")


def held_out_table(told: Told) -> str:
    """Measures down, evaluations across: the first, the result's, the last, and some between."""
    evaluations = told.evaluations
    if not evaluations:
        return ""
    shown = _chosen(evaluations, told.result_step)
    intervals = {one.get("step"): one for one in told.records.get("interval", ())}
    heads: list[Cell] = ["measure"]
    heads += [
        f"step {one['step']}" + (" (adapter)" if one["step"] == told.result_step else "")
        for one in shown
    ]
    names = dict.fromkeys(name for one in shown for name in one)
    rows: list[tuple[Cell, ...]] = []
    for name in names:
        if name == "step" or name.endswith(ENDS):
            continue
        cells = (with_ends(one, intervals.get(one["step"], one), name) for one in shown)
        rows.append((name.replace("_", " "), *cells))
    note = '<p class="quiet">Below a measure: its 95% interval over the rows.</p>'
    drawn = table(heads, rows, kinds=("k", *["n"] * len(shown)))
    return drawn + (note if intervals else "")


def _chosen(evaluations: list[Record], result: int | None) -> list[Record]:
    if len(evaluations) <= _MOST_COLUMNS:
        return evaluations
    last = len(evaluations) - 1
    chosen = {round(index * last / (_MOST_COLUMNS - 2)) for index in range(_MOST_COLUMNS - 1)}
    return [
        one for index, one in enumerate(evaluations) if index in chosen or one["step"] == result
    ]


def measured_tables(told: Told) -> Iterator[str]:
    """A table for each report of `qtune eval`: measures down, sides across."""
    for name, record in told.measured.items():
        sides = {side: _flat(value) for side, value in record.items() if isinstance(value, dict)}
        sides = {side: values for side, values in sides.items() if values}
        ordered = sorted(sides, key=lambda side: _SIDES.index(side) if side in _SIDES else 99)
        if not ordered:
            continue
        names = dict.fromkeys(key for side in ordered for key in sides[side])
        rows: list[tuple[Cell, ...]] = [
            (
                key.replace("_", " "),
                *(with_ends(sides[side], sides[side], key) for side in ordered),
            )
            for key in names
            if not key.endswith(ENDS)
        ]
        heads = [f"{name}.json", *(side.replace("_", " ") for side in ordered)]
        yield table(heads, rows, kinds=("k", *["n"] * len(ordered)))


def _flat(values: Record) -> dict[str, Any]:
    """The numbers of a side, those of its answers among them."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            found |= {name: each for name, each in _flat(value).items() if name not in found}
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[key] = value
    return found


def with_ends(values: Record, ends: Record, name: str) -> Raw:
    """A measure of one record with its interval's ends of another."""
    if name not in values:
        return Raw(number(None))
    return with_interval(values[name], *(ends.get(f"{name}{end}") for end in ENDS))
