"""`qtune sweep`: every run that is missing, then the table of all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtune.plan import gpus
from qtune.run.comparison.cells import Cells, Row
from qtune.run.sweeping.axes import read_axes
from qtune.run.sweeping.grid import combinations, machines_of
from qtune.run.sweeping.queue import Course, Fixed, Queue
from qtune.run.sweeping.ranking import rank

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qtune.run.display import Display
    from qtune.run.sweeping.grid import Combination

DEFAULT_FOLDER = "sweep"


def sweep(
    path: Path,
    over: Sequence[str],
    *,
    seeds: int,
    output: Path | None,
    overrides: Sequence[str] = (),
    display: Display,
) -> tuple[dict[str, Any], int]:
    """Train each combination of the values with each seed, a process a device; returns the report
    and the exit code: that of the first refusal when no run got through."""
    axes = read_axes(over)
    devices = gpus()
    points = combinations(path, overrides, axes, machines_of(devices))
    name, total = points[0].loaded.name, len(points) * seeds
    cells = Cells(output or Path(DEFAULT_FOLDER) / name, display, total=total, noun="sweep")
    display.line(_begins(points, seeds, devices))
    rows = [Row(point.label, "run") for point in points]
    with cells.held():
        first = points[0].asked.train.seed
        tasks = [
            cells.task(row, point.asked, seed)
            for seed in range(first, first + seeds)
            for row, point in zip(rows, points, strict=True)
        ]
        queue = _queue(cells, points, display, runs=total, devices=devices)
        try:
            queue.run(Fixed(tasks, cells))
        except BaseException:
            done = sum(len(row.runs) for row in rows)
            display.line(f"{done} of {total} runs are finished; the same command goes on")
            raise
        report = rank(rows, points, name=name)
    report["over"] = {axis.key: list(axis.values) for axis in axes}
    return report | {"folder": str(cells.folder)}, code_of(rows)


def code_of(rows: Sequence[Row]) -> int:
    """0 when any run got through."""
    refused = [row.code for row in rows if row.fault is not None]
    return refused[0] if len(refused) == len(rows) else 0


def _queue(
    cells: Cells,
    points: Sequence[Combination],
    display: Display,
    *,
    runs: int,
    devices: Sequence[str],
) -> Queue:
    steps = {point.steps for point in points}
    course = Course(
        display,
        runs=runs,
        steps=steps.pop() if len(steps) == 1 else None,
        devices=max(1, len(devices)),
    )
    rows = points[0].asked
    same = all(each.asked.data == rows.data and each.asked.model == rows.model for each in points)
    return Queue(cells, course, display, devices=devices, same_rows=same)


def _begins(points: Sequence[Combination], seeds: int, devices: Sequence[str]) -> str:
    many = f"{len(points)} combinations" if len(points) > 1 else "1 combination"
    each = f", {seeds} seeds each" if seeds > 1 else ""
    where = f"{len(devices)} GPUs" if len(devices) > 1 else "1 GPU" if devices else "the CPU"
    return f"{many}{each}: {len(points) * seeds} runs on {where}, one on a device at a time"
