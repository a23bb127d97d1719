"""recipe.lock.yaml: a recipe that repeats its run exactly, or says what is no longer the same."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from qtune import models, runs
from qtune.durable import sha256_of, write_text
from qtune.errors import DataError, Fault, ModelError, ResumeError
from qtune.models.files import locate
from qtune.recipe import sources
from qtune.recipe.kinds import OF_IMAGES
from qtune.recipe.results import PinsSection
from qtune.run.own_recipe import own_recipe
from qtune.run.teaching import teacher_fingerprint

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from qtune.data import Prepared, Streamed
    from qtune.plan import Plan
    from qtune.recipe.sections import Recipe
    from qtune.run.display import Journal

LOCK = "recipe.lock.yaml"
PLANNED = ("micro_batch_size", "activations", "base", "dequantized_layers", "loss_chunk_size")
HINT = "restore it, or train the run's recipe.yaml, which pins nothing"


def write_lock(
    folder: Path, asked: Recipe, decided: Plan, prepared: Prepared | Streamed, base: str
) -> None:
    """Write the lock file of a run: its recipe with what the plan chose, and all that is pinned."""
    model = asked.model.model_copy(update=_commit(asked))
    chosen = {key: getattr(decided, key) for key in PLANNED}
    pins = PinsSection(
        data=dict(_files(asked)),
        rows=_rows(prepared),
        base=base,
        teacher=teacher_fingerprint(asked),
        packages=_packages(),
    )
    sections: dict[str, Any] = {
        "model": model,
        "memory": asked.memory.model_copy(update=chosen),
        "pins": pins,
    }
    locked = asked.model_copy(update=sections)
    write_text(folder / LOCK, own_recipe(locked, {}, folder))


def check_inputs(asked: Recipe, journal: Journal) -> None:
    """Before any row is read: `DataError`, `ModelError` or `ResumeError` for each file, base or
    teacher that is not the pinned one; other versions are only said."""
    pins = asked.pins
    for name, version in _packages().items() if pins.packages else ():
        if (before := pins.packages.get(name)) != version:
            journal.line(f"pins: {name} was {before}, is {version}: results may round otherwise")
    if pins.data:
        now = dict(_files(asked))
        names = dict.fromkeys([*pins.data, *now])
        faults = [
            Fault(message=_other(pins.data.get(name), now.get(name)), place=f"pins.data.{name}")
            for name in names
            if pins.data.get(name) != now.get(name)
        ]
        _refuse(faults, DataError)
    if pins.base is not None:
        section = asked.model
        there = models.fingerprint(locate(section.name_or_path, revision=section.revision))
        if there != pins.base:
            _refuse([Fault(message=_other(pins.base, there), place="pins.base")], ModelError)
    if pins.teacher is not None and (found := teacher_fingerprint(asked)) != pins.teacher:
        _refuse([Fault(message=_other(pins.teacher, found), place="pins.teacher")], ResumeError)


def check_rows(asked: Recipe, prepared: Prepared | Streamed) -> None:
    """Before any weight is read: `DataError` unless the encoded rows are the pinned ones."""
    now = _rows(prepared)
    faults = [
        Fault(
            message=f"the encoded rows are others: {_other(pinned, now.get(name))}",
            place=f"pins.rows.{name}",
        )
        for name, pinned in asked.pins.rows.items()
        if pinned != now.get(name)
    ]
    _refuse(faults, DataError)


def _refuse(faults: list[Fault], kind: type[DataError | ModelError | ResumeError]) -> None:
    if faults:
        last = faults[-1]
        raise kind.of([*faults[:-1], Fault(message=last.message, place=last.place, hint=HINT)])


def _other(pinned: str | None, found: str | None) -> str:
    if pinned is None:
        return "was not there when the run was locked"
    if found is None:
        return "is not there any more"
    return f"has changed: sha256 was {pinned[:12]}, is {found[:12]}"


def _files(asked: Recipe) -> Iterator[tuple[str, str]]:
    """sha256 of each local data file, by the key of its source."""
    for part in ("train", "eval"):
        for index, source in enumerate(getattr(asked.data, part)):
            found = sources.find(source)
            if found is None or found.kind == OF_IMAGES:  # its rows are pinned
                continue
            for path in found.paths:
                inside = "" if path == found.root else f"/{os.path.relpath(path, found.root)}"
                yield f"{part}.{index}{inside}", sha256_of(path)


def _rows(prepared: Prepared | Streamed) -> dict[str, str]:
    parts = {"train": prepared.train, "eval": prepared.eval}
    return {name: rows.fingerprint for name, rows in parts.items() if rows is not None}


def _packages() -> dict[str, str]:
    environment = runs.environment()
    return {"qtune": environment["qtune"], **environment["packages"]}


def _commit(asked: Recipe) -> dict[str, str]:
    """The commit of a hub id, as its place in the cache tells it."""
    folder = locate(asked.model.name_or_path, revision=asked.model.revision)
    return {"revision": folder.name} if folder.parent.name == "snapshots" else {}
