"""Retention over random lives with random deaths: the best and the last are never removed."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from qtune import durable
from qtune.runs import RunFolder, checkpoint
from tests.runs.story import leftovers

SEQUENCES, SAVES = 500, 4


class Killed(BaseException):
    """The process is gone: from here on it does nothing, not even clean up."""


def _killing(chance: random.Random) -> Callable[[str, Path], None]:
    """End at a random operation of a save, often one of its retention; and stay dead."""
    number = chance.randrange(30)
    passed = count()

    def end(*_: object) -> None:
        if next(passed) >= number:
            raise Killed

    return end


def _fill(step: int) -> Callable[[Path], None]:
    def fill(draft: Path) -> None:
        with durable.new_file(draft / "state.json") as write:
            write(json.dumps({"step": step}).encode())

    return fill


class Model:
    """What must be there, told without looking at the disk."""

    def __init__(self, chance: random.Random) -> None:
        self.newest = chance.randint(1, 3)
        self.best: int | None = None
        self.there: set[int] = set()

    def kept_after(self, step: int) -> set[int]:
        """The steps that stay when the save of a step has returned."""
        there = self.there | {step}
        best = set() if self.best is None else {self.best} & there
        return set(sorted(there)[-self.newest :]) | best

    def allows(self, step: int, found: set[int]) -> bool:
        """Whether a death in the save of a step may leave these: all there were, or, once the new
        one is there, at least what stays beside it."""
        if step not in found:
            return found == self.there
        return self.kept_after(step) <= found <= self.there | {step}


def _save(folder: Path, model: Model, step: int) -> None:
    pinned = set() if model.best is None else {model.best}
    RunFolder(folder).save_checkpoint(
        step, _fill(step), facts={}, newest=model.newest, pinned=pinned
    )


def _sound(folder: Path) -> set[int]:
    """The steps there, each of which must be whole, with the content of its step."""
    for step, path in checkpoint.checkpoints(folder / "checkpoints").items():
        assert checkpoint.read(path).step == step
        assert json.loads((path / "state.json").read_text()) == {"step": step}
    return set(checkpoint.checkpoints(folder / "checkpoints"))


def _live(folder: Path, chance: random.Random) -> int:
    """One random life; returns how often it died."""
    model, deaths = Model(chance), 0
    folder.mkdir()
    steps = sorted(chance.sample(range(1, 2_000_000), SAVES))
    for step in steps:
        if chance.random() < 0.4:
            model.best = step
        try:
            if chance.random() < 0.5:
                with durable.watching(_killing(chance)):
                    _save(folder, model, step)
            else:
                _save(folder, model, step)
        except Killed:
            deaths += 1
            found = _sound(folder)
            assert model.allows(step, found)
            if model.best == step and step not in found:
                model.best = None  # it was not saved, so the run that goes on does not know it
            model.there = found
        else:
            model.there = model.kept_after(step)
            assert _sound(folder) == model.there
            assert leftovers(folder) == []
    return deaths


def test_the_best_and_the_last_are_never_removed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)  # a kill loses nothing that the system has
    deaths = sum(_live(tmp_path / str(seed), random.Random(seed)) for seed in range(SEQUENCES))
    assert deaths > SEQUENCES // 2
    record_property("G22 sequences", SEQUENCES)
    record_property("G22 kills", deaths)


def test_a_kill_inside_a_deletion_leaves_no_half_of_a_checkpoint(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Every operation of a retention that removes three of five."""
    for number in count():
        folder = tmp_path / str(number) / "checkpoints"
        folder.mkdir(parents=True)
        for step in (1, 2, 3, 4, 5):
            checkpoint.save(folder / checkpoint.name_of(step), _fill(step), facts={})
        passed = count()

        def end(*_: object, number: int = number, passed: count[int] = passed) -> None:
            if next(passed) >= number:
                raise Killed

        try:
            with durable.watching(end):
                checkpoint.retain(folder, {2, 5})
        except Killed:
            assert {2, 5} <= _sound(folder.parent)
            checkpoint.save(folder / "step-000006", _fill(6), facts={})
            checkpoint.retain(folder, {2, 6})
            assert _sound(folder.parent) == {2, 6}
            assert leftovers(folder) == []
        else:
            break
    assert number >= 15
    record_property("G22 kills", number)
