"""Every combination of the values as a recipe, read and planned before the first one runs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from math import prod
from typing import TYPE_CHECKING, Any

from qtune import recipe
from qtune.errors import Fault, QtuneError, UsageError, first_few
from qtune.plan import Machine
from qtune.recipe.rule import held_out
from qtune.run.comparison.entries import without_folder
from qtune.run.plan import plan_for
from qtune.run.sweeping.axes import label_of, setting

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from qtune.recipe import Loaded, Recipe
    from qtune.run.sweeping.axes import Axis

_MOST_ENDS = 256
_KEPT = {
    "train.seed": "use --seeds",
    "train.output_dir": "every run has a folder of its own",
    "checkpoint.metric": "it is what the runs are judged by",
    "checkpoint.resume": "a run that was stopped goes on by itself",
}


@dataclass(frozen=True)
class Combination:
    """One point of the grid; `steps` None: not known before its rows are read."""

    label: str
    settings: dict[str, Any]
    loaded: Loaded
    steps: int | None = None

    @property
    def asked(self) -> Recipe:
        """Its recipe, without a folder."""
        return without_folder(self.loaded.recipe)


class Faults:
    """Faults of combinations, each told once with those that have it."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._found: dict[Fault, list[str]] = {}
        self._kind: type[QtuneError] = UsageError

    def add(self, label: str, error: QtuneError) -> None:
        """Note what is wrong with one combination; the first one's kind is that of all."""
        if not self._found:
            self._kind = type(error)
        for fault in error.faults:
            place = fault.place.replace("--set", "--over", 1)
            self._found.setdefault(replace(fault, place=place), []).append(label)

    def check(self) -> None:
        """Raise them as one error, if there are any."""
        if self._found:
            raise self._kind.of([self._told(*each) for each in self._found.items()])

    def _told(self, fault: Fault, labels: list[str]) -> Fault:
        if len(labels) == self._count:  # it is the recipe's own
            return fault
        return replace(fault, message=f"{first_few(labels)}: {fault.message}")


def points_of(axes: Sequence[Axis]) -> list[dict[str, Any]]:
    """The grid in order, the last key first to change; of ranges the ends."""
    keys = [axis.key for axis in axes]
    values = product(*(axis.values for axis in axes))
    return [dict(zip(keys, each, strict=True)) for each in values]


def ends_of(axes: Sequence[Axis]) -> list[dict[str, Any]]:
    """What is checked before a search: the grid of listed values and of the ends of ranges; where
    that is too large, each key by itself."""
    if prod(len(axis.values) for axis in axes) <= _MOST_ENDS:
        return points_of(axes)
    first = {axis.key: axis.values[0] for axis in axes}
    others = [first | {axis.key: value} for axis in axes for value in axis.values[1:]]
    return [first, *others]


def combinations(
    path: Path,
    overrides: Sequence[str],
    points: Sequence[dict[str, Any]],
    machines: Sequence[Machine],
) -> list[Combination]:
    """The points read and planned; all faulty ones in one error."""
    return planned(read(path, overrides, points), machines)


def read(
    path: Path, overrides: Sequence[str], points: Sequence[dict[str, Any]]
) -> list[Combination]:
    """The recipes of the points; `UsageError` names each combination that is none."""
    faults, found = Faults(len(points)), []
    for settings in points:
        label = label_of(settings)
        try:
            loaded = recipe.load(path, [*overrides, *(setting(*each) for each in settings.items())])
            require_held_out(loaded.recipe, str(path))
        except QtuneError as error:
            faults.add(label, error)
        else:
            found.append(Combination(label, settings, loaded))
    faults.check()
    _refuse_kept(found)
    _refuse_equal(found)
    return found


def planned(found: Sequence[Combination], machines: Sequence[Machine]) -> list[Combination]:
    """Each with its number of steps; one error names all that cannot be run on the smallest
    device, on which any may come to run."""
    machine = min(machines, key=lambda each: each.device_memory)
    faults, fit = Faults(len(found)), []
    for each in found:
        try:
            made = plan_for(each.loaded, machine).plan
            made.check()
        except QtuneError as error:
            faults.add(each.label, error)
        else:
            fit.append(replace(each, steps=made.steps.total if made.steps else None))
    faults.check()
    return fit


def machines_of(devices: Sequence[str]) -> list[Machine]:
    """What the runs are planned for: the GPUs, or this CPU."""
    return [Machine.probe(device) for device in devices] or [Machine.probe()]


def require_held_out(asked: Recipe, place: str) -> None:
    """`UsageError` where nothing is held out to measure on."""
    if not held_out(asked):
        raise UsageError(
            "runs are compared on held-out rows, and there are none",
            place=place,
            hint="set data.eval or data.val_size",
        )


def _refuse_kept(found: Sequence[Combination]) -> None:
    for key, hint in _KEPT.items():
        section, _, name = key.partition(".")
        if len({getattr(getattr(each.loaded.recipe, section), name) for each in found}) > 1:
            raise UsageError(f"{key} is not varied", place="--over", hint=hint)


def _refuse_equal(found: Sequence[Combination]) -> None:
    """Two names of one key, or two ways to write one value."""
    labels: dict[str, str] = {}
    for each in found:
        told = each.loaded.recipe.model_dump_json()
        if told in labels:
            raise UsageError(f"{labels[told]} and {each.label} are the same run", place="--over")
        labels[told] = each.label
