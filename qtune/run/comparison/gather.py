"""The table of a comparison: five axes a row, from reports and measured costs."""

from __future__ import annotations

from statistics import mean, median, stdev
from typing import TYPE_CHECKING, Any

from qtune import runs
from qtune.artefacts import read_object
from qtune.runs import past
from qtune.runs.page import portable_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qtune.errors import Fault
    from qtune.recipe import Recipe
    from qtune.run.comparison.cells import Row

WEIGHTS = "*.safetensors"


def gather(rows: Sequence[Row], asked: Recipe, *, name: str) -> dict[str, Any]:
    """What `compare.json` says."""
    table = [_row(row) for row in rows]
    trained = [row for row in table if row["kind"] != "base" and row["seeds"]]
    return {
        "name": name,
        "seeds": max((len(row["seeds"]) for row in trained), default=0),
        "measures": list(dict.fromkeys(key for row in table for key in row["accuracy"])),
        "rows": table,
        "notes": [*_notes(trained, asked)],
        "environment": runs.environment(),
    }


def measured(row: Row) -> dict[str, Any]:
    """The held-out measures of a row."""
    return _accuracy(row, [read_object(run / past.REPORT) for run in row.runs])


def _row(row: Row) -> dict[str, Any]:
    reports = [read_object(run / past.REPORT) for run in row.runs]
    seconds = row.cost.get("seconds_per_token", {})
    return {
        "name": row.label,
        "kind": row.kind,
        "reason": _reason(row.fault),
        "seeds": [_told(run.name, report) for run, report in zip(row.runs, reports, strict=True)],
        "storage": _storage(row, reports),
        "memory": _memory(row, reports),
        "compute": _compute(row, reports),
        "accuracy": _accuracy(row, reports),
        "inference": {
            "seconds_per_token": seconds.get("attached", seconds.get("base")),
            "base_seconds_per_token": seconds.get("base"),
            "merged_seconds_per_token": seconds.get("merged"),
            "overhead": _share(seconds.get("attached"), seconds.get("base")),
            "not_merged": row.cost.get("not_merged") or None,
        },
    }


def _told(name: str, report: dict[str, Any]) -> dict[str, Any]:
    """What one run was: its name, such as seed-42, steps, tokens, and the step of its result."""
    keys = ("steps", "tokens", "supervised_tokens", "adapter_step", "tokens_per_second", "seconds")
    return {"run": name} | {key: report.get(key) for key in (*keys, "training_seconds")}


def _storage(row: Row, reports: list[dict[str, Any]]) -> dict[str, Any]:
    if not reports:
        return {"adapter_bytes": 0 if row.kind == "base" else None, "trainable_parameters": None}
    files = (row.runs[0] / past.ADAPTER).rglob(WEIGHTS)
    return {
        "adapter_bytes": sum(file.stat().st_size for file in files),
        "trainable_parameters": reports[0].get("trainable_parameters"),
    }


def _memory(row: Row, reports: list[dict[str, Any]]) -> dict[str, Any]:
    peaks = [report["memory"]["measured_peak_bytes"] for report in reports]
    planned = [report["memory"]["predicted_bytes"] for report in reports]
    return {
        "training_peak_bytes": max(peaks, default=None),
        "training_planned_bytes": max(planned, default=None),
        "inference_peak_bytes": row.cost.get("inference_peak_bytes"),
    }


def _compute(row: Row, reports: list[dict[str, Any]]) -> dict[str, Any]:
    speeds = [report["tokens_per_second"] for report in reports if report["tokens_per_second"]]
    return {
        "tokens_per_second": median(speeds) if speeds else None,
        "training_flops_per_token": row.cost.get("training_flops_per_token"),
        "forward_flops_per_token": row.cost.get("forward_flops_per_token"),
    }


def _accuracy(row: Row, reports: list[dict[str, Any]]) -> dict[str, Any]:
    """Each held-out measure of the weights that are the result: mean, spread and every value."""
    found = [_held_out(report) for report in reports] or [row.cost.get("evaluation", {})]
    names = [name for name in found[0] if name not in ("step", "kind", "perplexity")]
    return {name: _spread([float(one[name]) for one in found if name in one]) for name in names}


def _held_out(report: dict[str, Any]) -> dict[str, Any]:
    evaluations: list[dict[str, Any]] = report.get("evaluations") or [{}]
    of_result = [one for one in evaluations if one.get("step") == report.get("adapter_step")]
    return (of_result or evaluations)[-1]


def _spread(values: list[float]) -> dict[str, Any]:
    """`deviation` is that of a sample; None for one value."""
    return {
        "mean": mean(values),
        "deviation": stdev(values) if len(values) > 1 else None,
        "values": values,
    }


def _share(ours: float | None, base: float | None) -> float | None:
    return ours / base - 1 if ours and base else None


def _reason(fault: Fault | None) -> str | None:
    return None if fault is None else portable_text(str(fault))


def _notes(trained: list[dict[str, Any]], asked: Recipe) -> list[str]:
    """What must be known to read the table."""
    notes = []
    budgets = {tuple(seed["tokens"] for seed in row["seeds"]) for row in trained}
    if len({counts[: min(map(len, budgets))] for counts in budgets}) > 1:
        notes.append("the rows learnt from different numbers of tokens")
    if asked.data.val_size and not asked.data.eval and any(len(r["seeds"]) > 1 for r in trained):
        notes.append("data.val_size holds out other rows with each seed; a base has the first's")
    return notes
