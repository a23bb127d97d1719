"""The queue: as many processes as there are devices, one run on a device at a time."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Protocol

from qtune.errors import ExitCode
from qtune.plan import duration
from qtune.run.comparison.cells import CellError
from qtune.run.comparison.children import Crew

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qtune.run.comparison.cells import Cells, Row, Task
    from qtune.run.comparison.children import Child, Outcome
    from qtune.run.display import Display
    from qtune.run.sweeping.grid import Combination

VISIBLE = "CUDA_VISIBLE_DEVICES"


class Source(Protocol):
    """Where the runs come from."""

    def next(self) -> Task | None:
        """The next one; None when there is none, before another one has ended at least."""

    def ended(self, task: Task) -> None:
        """A run is over, well or not."""


class Fixed:
    """Runs that are known beforehand; those of a refused row are left out."""

    def __init__(
        self,
        tasks: Sequence[Task],
        cells: Cells,
        rows: Sequence[Row],
        points: Sequence[Combination],
    ) -> None:
        self.rows, self.points = rows, points
        self._waiting = deque(tasks)
        self._cells = cells

    def next(self) -> Task | None:
        """The next one."""
        while self._waiting:
            task = self._waiting.popleft()
            if task.row.fault is None:
                return task
            self._cells.skip(1)
        return None

    def ended(self, task: Task) -> None:
        """Nothing depends on it."""


class Course:
    """How far all runs are: a bar over the steps of all, and the time that is left."""

    def __init__(self, display: Display, cells: Cells, *, steps: int | None, devices: int) -> None:
        self._display, self._cells = display, cells
        self._steps, self._devices = steps, devices
        self._times: list[float] = []

    def show(self, busy: dict[Child, Task]) -> None:
        """What runs, as far as it is."""
        over, runs = self._cells.done, self._cells.total
        which = f"{over + 1}" if len(busy) == 1 else f"{over + 1}-{over + len(busy)}"
        name = f": {next(iter(busy.values())).row.label}" if len(busy) == 1 else ""
        steps = self._steps or max((child.total for child in busy), default=0)
        done = over * steps + sum(child.done for child in busy)
        what = f"{which} of {runs}{name}{self._left(runs - over)}"
        self._display.progress(what, done, max(done + 1, runs * steps))

    def took(self, seconds: float) -> None:
        """One more run is over."""
        self._times.append(seconds)

    def _left(self, runs: int) -> str:
        if not self._times:
            return ""
        rounds = -(-runs // self._devices)
        return f", about {duration(rounds * sum(self._times) / len(self._times))} left"


class Queue:
    """Runs what a source gives over devices (names for CUDA_VISIBLE_DEVICES; none: the CPU).

    `same_rows`: faulty rows are those of every run.
    """

    def __init__(
        self,
        cells: Cells,
        course: Course,
        display: Display,
        *,
        devices: Sequence[str],
        same_rows: bool,
    ) -> None:
        self._cells, self._course, self._display = cells, course, display
        given: list[str | None] = [*devices]
        self._free = deque(given or [None])
        self._same_rows = same_rows
        self._busy: dict[Child, Task] = {}
        self._taken: dict[Child, tuple[str | None, float]] = {}

    def run(self, source: Source) -> None:
        """All runs; a signal, or an end that concerns every run, stops those that run, which
        save first."""
        with Crew() as crew:
            try:
                self._fill(crew, source)
                while self._busy:
                    child, outcome = crew.next_ended(lambda _: self._course.show(self._busy))
                    self._end(child, outcome, source)
                    self._fill(crew, source)
            except BaseException:
                if crew.children:
                    self._display.line("stopping: what runs saves first")
                raise

    def _fill(self, crew: Crew, source: Source) -> None:
        while self._free:
            task = source.next()
            if task is None:
                return
            if task.finished:
                self._cells.keep(task)
                source.ended(task)
                continue
            device = self._free.popleft()
            environment = {} if device is None else {VISIBLE: device}
            child = crew.start(task.work.command, task.work.log, environment)
            self._busy[child], self._taken[child] = task, (device, time.monotonic())
            self._course.show(self._busy)

    def _end(self, child: Child, outcome: Outcome, source: Source) -> None:
        task, (device, began) = self._busy.pop(child), self._taken.pop(child)
        if outcome.stops_all and (self._same_rows or outcome.code != ExitCode.DATA):
            raise CellError(outcome.fault, outcome.code, what=task.work.what)
        self._free.append(device)
        self._cells.end(task, outcome)
        self._course.took(time.monotonic() - began)
        source.ended(task)
