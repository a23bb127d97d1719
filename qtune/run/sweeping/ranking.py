"""The table of a sweep: the best by the recipe's checkpoint metric on top."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from qtune.recipe.results import SMALLER_IS_BETTER
from qtune.run.comparison.gather import gather, measured
from qtune.run.sweeping.axes import setting
from qtune.runs import past

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qtune.recipe import Recipe
    from qtune.run.comparison.cells import Row
    from qtune.run.sweeping.grid import Combination

_OTHER_ROWS = ("data", "model")


def rank(rows: Sequence[Row], points: Sequence[Combination], *, name: str) -> dict[str, Any]:
    """What `sweep.json` says; refused rows come last."""
    asked = points[0].asked
    metric = asked.checkpoint.metric
    report = gather(rows, asked, name=name)
    for row, of_runs, point in zip(report["rows"], rows, points, strict=True):
        row["settings"] = point.settings
        row["gates_failed"] = sum(past.look(run).gates_failed or 0 for run in of_runs.runs)
        del row["inference"]  # what it costs in use is not measured here
    lower = metric in SMALLER_IS_BETTER
    report["rows"].sort(key=lambda row: _key(row, metric, lower=lower))
    others = [one for one in report["measures"] if one != metric]
    measured = any(metric in row["accuracy"] for row in report["rows"])
    report["measures"] = [*([metric] if measured else []), *others]
    report["notes"] += _notes([point.asked for point in points])
    ranked = {"metric": metric, "better": "lower" if lower else "higher"}
    return ranked | report | {"best": _best(report["rows"][0], metric, lower=lower)}


def mean_of(row: Row, metric: str) -> float | None:
    """What the runs of a row reached, in the mean; None for a refused row, or one without."""
    figures = measured(row).get(metric)
    return None if row.fault is not None or not row.runs or figures is None else figures["mean"]


def value_of(row: dict[str, Any], metric: str) -> float | None:
    """The mean over the seeds; None for a row without."""
    figures = row["accuracy"].get(metric)
    return None if figures is None or row["reason"] else figures["mean"]


def _key(row: dict[str, Any], metric: str, *, lower: bool) -> float:
    value = value_of(row, metric)
    if value is None or math.isnan(value):
        return math.inf
    return value if lower else -value


def _best(row: dict[str, Any], metric: str, *, lower: bool) -> dict[str, Any] | None:
    """The first row, if it has a result: how to ask for it again, and its best run."""
    value = value_of(row, metric)
    if value is None:
        return None
    values = row["accuracy"][metric]["values"]
    number = values.index(min(values) if lower else max(values))
    return {
        "name": row["name"],
        "settings": [setting(*each) for each in row["settings"].items()],
        metric: value,
        "run": f"cells/{row['name']}/{row['seeds'][number]['run']}",
    }


def _notes(asked: Sequence[Recipe]) -> list[str]:
    for section in _OTHER_ROWS:
        if any(getattr(each, section) != getattr(asked[0], section) for each in asked):
            return [f"{section} differs from row to row: what they are measured on may differ, too"]
    return []
