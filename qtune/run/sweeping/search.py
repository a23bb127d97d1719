"""`--trials N`: Optuna chooses each combination by what came of those before it.

Every choice is written down before it runs (trials.json): a search that was stopped tells Optuna
all of them again, in their order, and goes on.
"""

from __future__ import annotations

from collections import deque
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from qtune.artefacts import read_object
from qtune.durable import write_json
from qtune.errors import QtuneError, ResumeError, UsageError
from qtune.recipe.results import SMALLER_IS_BETTER
from qtune.run.comparison.cells import Row
from qtune.run.sweeping.axes import label_of
from qtune.run.sweeping.grid import combinations
from qtune.run.sweeping.ranking import mean_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import optuna

    from qtune.plan import Machine
    from qtune.run.comparison.cells import Cells, Task
    from qtune.run.display import Display
    from qtune.run.sweeping.axes import Axis
    from qtune.run.sweeping.grid import Combination

TRIALS = "trials.json"
_DIGITS = 4
"""Of a searched value that is no whole number: more make long names and no difference."""


@dataclass(frozen=True)
class Space:
    """What is searched, from which recipe, and for which machines it is planned."""

    path: Path
    overrides: Sequence[str]
    axes: Sequence[Axis]
    machines: Sequence[Machine]
    metric: str
    seeds: range
    trials: int


@dataclass
class Trial:
    """A combination that was chosen, and how many of its runs are still to end."""

    asked: optuna.Trial
    row: Row
    left: int


@dataclass
class Search:
    """A source of runs; `rows` and `points` are what came of it so far, a line a combination."""

    space: Space
    cells: Cells
    display: Display
    rows: list[Row] = field(default_factory=list)
    points: list[Combination] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._waiting: deque[Task] = deque()
        self._open: list[Trial] = []
        self._chosen = self._read()
        self._begun = 0
        self._distributions = {axis.key: distribution(axis) for axis in self.space.axes}
        self._study = study(self.space, chosen=len(self._chosen))
        for parameters in self._chosen[: self.space.trials]:
            self._study.enqueue_trial(parameters)

    def next(self) -> Task | None:
        """The next run: of a trial that has begun, else of a new one; None after the last."""
        while True:
            while self._waiting:
                task = self._waiting.popleft()
                if task.row.fault is None:
                    return task
                self.cells.skip(1)
            if self._begun == self.space.trials:
                return None
            self._begin()

    def ended(self, task: Task) -> None:
        """Tell Optuna of a trial whose last run this was."""
        [trial] = [each for each in self._open if each.row is task.row]
        trial.left -= 1
        if trial.left and task.row.fault is None:
            return
        self._open.remove(trial)
        self._tell(trial.asked, mean_of(task.row, self.space.metric))

    def _begin(self) -> None:
        """Choose a combination, write it down, and line up its runs."""
        asked = self._study.ask(self._distributions)
        self._begun += 1
        if self._begun > len(self._chosen):
            self._chosen.append(dict(asked.params))
            write_json(self._file, {"over": self._over(), "trials": self._chosen})
        settings = {axis.key: value_at(axis, asked.params[axis.key]) for axis in self.space.axes}
        label, seeds = label_of(settings), self.space.seeds
        same = [row for row in self.rows if row.label == label]
        if same:  # the same again: its runs are there, or on their way
            self.cells.skip(len(seeds))
            self._tell(asked, mean_of(same[0], self.space.metric))
            return
        try:
            [point] = combinations(
                self.space.path, self.space.overrides, [settings], self.space.machines
            )
        except QtuneError as error:  # the ends of all ranges are sound
            self.display.line(f"{label}: {error.faults[0]}")
            self.cells.skip(len(seeds))
            self._tell(asked, None)
            return
        row = Row(label, "run")
        self.rows.append(row)
        self.points.append(point)
        self._open.append(Trial(asked, row, len(seeds)))
        self._waiting.extend(self.cells.task(row, point.asked, seed) for seed in seeds)

    def _tell(self, asked: optuna.Trial, value: float | None) -> None:
        from optuna.trial import TrialState

        if value is None:
            self._study.tell(asked, state=TrialState.FAIL)
        else:
            self._study.tell(asked, value)

    @property
    def _file(self) -> Path:
        return self.cells.folder / TRIALS

    def _over(self) -> list[dict[str, Any]]:
        return [asdict(axis) | {"values": list(axis.values)} for axis in self.space.axes]

    def _read(self) -> list[dict[str, Any]]:
        """What was chosen before; `ResumeError` if that was of other values."""
        if not self._file.is_file():
            return []
        found = read_object(self._file)
        if found.get("over") != self._over():
            raise ResumeError(
                "this search was begun over other values",
                place=str(self._file),
                hint="name another folder with -o",
            )
        chosen: list[dict[str, Any]] = found["trials"]
        return chosen


def study(space: Space, *, chosen: int) -> optuna.Study:
    """An empty study; its sampler draws other numbers after each stop, for those of before are
    told to it again."""
    require_optuna()
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(seed=space.seeds.start + chosen)
    lower = space.metric in SMALLER_IS_BETTER
    return optuna.create_study(sampler=sampler, direction="minimize" if lower else "maximize")


def require_optuna() -> None:
    """`UsageError` where it is not installed."""
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise UsageError(
            "a search needs the package optuna",
            place="--trials",
            hint="pip install 'qtune[sweep]'",
        ) from None


def distribution(axis: Axis) -> optuna.distributions.BaseDistribution:
    """Where Optuna takes a key's value from: a range, or the number of a listed value."""
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    span = axis.span
    if span is None:
        return CategoricalDistribution(tuple(range(len(axis.values))))
    if span.whole:
        step = int(span.step or 1)
        return IntDistribution(int(span.low), int(span.high), log=span.log, step=step)
    return FloatDistribution(span.low, span.high, log=span.log, step=span.step)


def value_at(axis: Axis, parameter: Any) -> Any:
    """The value of the recipe for what Optuna chose, within the range."""
    if axis.span is None:
        return axis.values[parameter]
    if axis.span.whole:
        return parameter
    return min(max(float(f"{parameter:.{_DIGITS}g}"), axis.span.low), axis.span.high)
