"""`qtune sweep`: every run that is missing, then the table of all."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtune.errors import UsageError
from qtune.plan import gpus
from qtune.run.comparison.cells import Cells, Row
from qtune.run.sweeping.axes import read_axes
from qtune.run.sweeping.grid import combinations, ends_of, machines_of, points_of
from qtune.run.sweeping.kept import require_whole
from qtune.run.sweeping.queue import Course, Fixed, Queue
from qtune.run.sweeping.ranking import rank
from qtune.run.sweeping.search import Search, Space, require_optuna

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qtune.run.display import Display
    from qtune.run.sweeping.axes import Axis
    from qtune.run.sweeping.grid import Combination

DEFAULT_FOLDER = "sweep"


@dataclass(frozen=True)
class Extent:
    """How much is run: seeds of each combination; `trials` combinations by search, None: all."""

    seeds: int = 1
    trials: int | None = None


def sweep(
    path: Path,
    over: Sequence[str],
    *,
    extent: Extent,
    output: Path | None,
    overrides: Sequence[str] = (),
    display: Display,
) -> tuple[dict[str, Any], int]:
    """Train each combination of the values, or those that a search chooses, with each seed, a
    process a device; returns the report and the exit code: that of the first refusal when no run
    got through."""
    axes = read_axes(over)
    _check(axes, extent)
    devices = gpus()
    machines = machines_of(devices)
    checked = points_of(axes) if extent.trials is None else ends_of(axes)
    points = combinations(path, overrides, checked, machines)
    name, asked = points[0].loaded.name, points[0].asked
    count = len(points) if extent.trials is None else extent.trials
    total = count * extent.seeds
    cells = Cells(output or Path(DEFAULT_FOLDER) / name, display, total=total, noun="sweep")
    display.line(_begins(count, extent, devices))
    seeds = range(asked.train.seed, asked.train.seed + extent.seeds)
    metric = asked.checkpoint.metric
    with cells.held():
        require_whole(cells.folder, axes, seeds=seeds, trials=extent.trials)
        source: Fixed | Search
        if extent.trials is None:
            source = fixed(points, cells, seeds)
        else:
            space = Space(path, overrides, axes, machines, metric, seeds, extent.trials)
            source = Search(space, cells, display)
        queue = _queue(cells, points, display, devices=devices)
        try:
            queue.run(source)
        except BaseException:
            done = sum(len(row.runs) for row in source.rows)
            display.line(f"{done} of {total} runs are finished; the same command goes on")
            raise
        if not source.rows:
            raise UsageError("no combination that was tried is a sound one", place="--over")
        report = rank(source.rows, source.points, name=name)
    report["over"] = {axis.key: list(axis.values) for axis in axes}
    return report | {"folder": str(cells.folder)}, code_of(source.rows)


def fixed(points: Sequence[Combination], cells: Cells, seeds: range) -> Fixed:
    """The runs of a grid, with the first seed of all combinations first."""
    rows = [Row(point.label, "run") for point in points]
    tasks = [
        cells.task(row, point.asked, seed)
        for seed in seeds
        for row, point in zip(rows, points, strict=True)
    ]
    return Fixed(tasks, cells, rows, points)


def _check(axes: Sequence[Axis], extent: Extent) -> None:
    """`UsageError` for a range without a search, and a search without Optuna."""
    ranged = [axis.key for axis in axes if axis.span is not None]
    if extent.trials is not None:
        require_optuna()
    elif ranged:
        raise UsageError(
            f"{ranged[0]}: a range is searched, not listed",
            place="--over",
            hint="add --trials N, or list values: A,B,...",
        )


def code_of(rows: Sequence[Row]) -> int:
    """0 when any run got through."""
    refused = [row.code for row in rows if row.fault is not None]
    return refused[0] if len(refused) == len(rows) else 0


def _queue(
    cells: Cells, points: Sequence[Combination], display: Display, *, devices: Sequence[str]
) -> Queue:
    steps = {point.steps for point in points}
    alike = steps.pop() if len(steps) == 1 else None
    course = Course(display, cells, steps=alike, devices=max(1, len(devices)))
    rows = points[0].asked
    same = all(each.asked.data == rows.data and each.asked.model == rows.model for each in points)
    return Queue(cells, course, display, devices=devices, same_rows=same)


def _begins(count: int, extent: Extent, devices: Sequence[str]) -> str:
    kind = "combination" if extent.trials is None else "trial"
    many = f"{count} {kind}{'' if count == 1 else 's'}"
    each = f", {extent.seeds} seeds each," if extent.seeds > 1 else ""
    where = f"{len(devices)} GPUs" if len(devices) > 1 else "1 GPU" if devices else "the CPU"
    return f"{many}{each} on {where}, one run on a device at a time"
