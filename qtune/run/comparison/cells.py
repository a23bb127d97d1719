"""The folder of a comparison and its cells: what is finished stays, what is not goes on.

<folder>/
  cells/<row>/recipe.yaml                 the given recipe with the row's method
  cells/<row>/seed-42/                    the run of one seed, with its recipe beside it
  cells/<row>/cost.json                   what using it costs
  cells/<row>/log.txt                     what the processes said
  compare.json compare.md compare.svg     the result
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from qtune import recipe
from qtune.artefacts import read_object
from qtune.durable import require_writable, write_text
from qtune.errors import ExitCode, Fault, OutputError, QtuneError, ResumeError
from qtune.run.comparison.children import Work, qtune
from qtune.run.comparison.entries import seeded
from qtune.runs import lock, past

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from qtune.recipe import Recipe
    from qtune.run.comparison.children import Outcome
    from qtune.run.comparison.entries import Entry
    from qtune.run.display import Display

CELLS, COST, REPORT = "cells", "cost.json", "compare.json"
_DONE = (ExitCode.DONE, ExitCode.CHECK_FAILED)  # of a run that missed a gate there is an adapter


class CellError(QtuneError):
    """A process ended for a reason that concerns every other one, too."""

    def __init__(self, fault: Fault, code: int, *, what: str) -> None:
        super().__init__(f"{what}: {fault.message}", place=fault.place, hint=fault.hint)
        self.code = ExitCode(code)


@dataclass
class Row:
    """What there is of one line of the table; `fault` says why it is not whole."""

    label: str
    kind: str
    runs: list[Path] = field(default_factory=list)
    cost: dict[str, Any] = field(default_factory=dict)
    fault: Fault | None = None
    code: int = 0

    def refuse(self, fault: Fault, code: int) -> None:
        """Note why the row ends here."""
        self.fault, self.code = fault, code


@dataclass(frozen=True)
class Task:
    """The run of one seed of a row; `finished`: nothing is left to do."""

    row: Row
    run: Path
    work: Work
    finished: bool


class Cells:
    """Runs what is missing in the folder of a comparison, or of a sweep, which `noun` says.

    `done` of `total`: pieces of work that are over.
    """

    def __init__(
        self, folder: Path, display: Display, *, total: int, noun: str = "comparison"
    ) -> None:
        self.folder = folder
        self._display = display
        self.total = total
        self.done = 0
        self._noun = noun

    @contextmanager
    def held(self) -> Iterator[None]:
        """The folder for this process alone; `OutputError` for one that holds something else."""
        folder = self.folder
        if folder.exists() and not folder.is_dir():
            raise OutputError("the output is a file", place=str(folder), hint="name a folder")
        there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
        if there - {lock.NAME} and CELLS not in there:
            raise OutputError(
                f"the folder holds no {self._noun}",
                place=str(folder),
                hint="name another with -o",
            )
        require_writable(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with lock.hold(folder):
            yield

    def train(self, row: Row, asked: Recipe, seed: int) -> None:
        """The run of one seed, unless it is finished."""
        task = self.task(row, asked, seed)
        if task.finished:
            self.keep(task)
        else:
            work = task.work
            self.end(task, self._run(row, [*work.words], work.what))

    def task(self, row: Row, asked: Recipe, seed: int) -> Task:
        """The run of one seed, with its recipe in its place."""
        place = self._place(row.label)
        run, file = place / f"seed-{seed}", place / f"seed-{seed}.yaml"
        self._keep_recipe(file, seeded(asked, seed))
        words = ("train", str(file), "-o", str(run))
        work = Work(words, f"{row.label}, seed {seed}", place / past.LOG)
        return Task(row, run, work, _is_finished(run))

    def end(self, task: Task, outcome: Outcome) -> None:
        """Take a run that has ended into its row, or refuse the row."""
        if outcome.code in _DONE:
            self.keep(task)
        else:
            task.row.refuse(outcome.fault, outcome.code)
            self._tell(f"{task.work.what}: {outcome.fault}")

    def keep(self, task: Task) -> None:
        """Take a finished run into its row."""
        task.row.runs.append(task.run)
        self._tell(f"{task.work.what}: {_result(read_object(task.run / past.REPORT))}")

    def cost(self, row: Row, asked: Recipe, run: Path | None) -> None:
        """What using the row's first run, or the base alone, costs, unless it is known."""
        place = self._place(row.label)
        file, target = place / past.RECIPE, place / COST
        self._keep_recipe(file, asked)
        what = f"{row.label}, in use"
        if not target.is_file():
            named = ["--run", str(run)] if run is not None else []
            outcome = self._run(row, ["cost", str(file), *named, "-o", str(target)], what)
            if outcome.code != ExitCode.DONE:
                row.refuse(outcome.fault, outcome.code)
                self._tell(f"{what}: {outcome.fault}")
                return
        row.cost = read_object(target)
        self._tell(f"{what}: {_latency(row.cost)}")

    def skip(self, count: int) -> None:
        """Cells that a refused row no longer needs."""
        self.total -= count

    def _run(self, row: Row, words: list[str], what: str) -> Outcome:
        log = self._place(row.label) / past.LOG
        self._display.progress(what, self.done, self.total)
        outcome = qtune(words, what=what, log=log, display=self._display)
        if outcome.stops_all:
            raise CellError(outcome.fault, outcome.code, what=what)
        return outcome

    def _place(self, label: str) -> Path:
        place = self.folder / CELLS / label
        place.mkdir(parents=True, exist_ok=True)
        return place

    def _keep_recipe(self, file: Path, asked: Recipe) -> None:
        """Write a cell's recipe once; `ResumeError` if the cell was made with another."""
        text = recipe.to_yaml(asked, relative_to=file.parent)
        if not file.exists():
            write_text(file, text)
        elif file.read_text(encoding="utf-8") != text:
            raise ResumeError(
                f"this part of the {self._noun} was made with another recipe",
                place=str(file),
                hint="name another folder with -o, or remove this one",
            )

    def _tell(self, text: str) -> None:
        self.done += 1
        self._display.line(f"{text}  ({self.done} of {self.total})")


def rows_of(entries: list[Entry]) -> list[Row]:
    """A row for each entry; what has no recipe is refused already."""
    rows = []
    for entry in entries:
        row = Row(entry.label, "base" if entry.reference else "method")
        if entry.fault is not None:
            row.refuse(entry.fault, ExitCode.USAGE)
        rows.append(row)
    return rows


def _is_finished(run: Path) -> bool:
    return run.is_dir() and past.is_run(run) and past.look(run).state == "finished"


def _result(report: dict[str, Any]) -> str:
    held_out = report["evaluations"][-1:]
    loss = f"loss {held_out[0]['loss']:.4f}, " if held_out else ""
    return f"{loss}{report['tokens_per_second'] or 0:,.0f} tokens/s"


def _latency(cost: dict[str, Any]) -> str:
    told = cost["seconds_per_token"]
    return ", ".join(
        f"{side} {seconds * 1000:.3g} ms a token" for side, seconds in told.items() if seconds
    )
