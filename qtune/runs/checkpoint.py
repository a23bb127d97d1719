"""Checkpoints on the disk: written whole or not at all, verified when read, removed by number.

What lies in one is for its writer to say; here it is files with names, sizes and hashes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qtune import durable
from qtune.errors import ModelError
from qtune.runs import manifest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_NAME = re.compile(r"step-(\d{6,})")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint whose every byte is what was written; `facts` are its writer's."""

    path: Path
    step: int
    facts: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Newest:
    """The newest sound checkpoint, and the newer ones that are not: name and reason."""

    checkpoint: Checkpoint | None
    skipped: tuple[tuple[str, str], ...]


def name_of(step: int) -> str:
    """The folder name of a step's checkpoint."""
    return f"step-{step:06d}"


def save(target: Path, fill: Callable[[Path], None], *, facts: dict[str, Any]) -> None:
    """Write the checkpoint `target`, named by `name_of`; `fill` writes its files into the hidden
    folder it is given. `ResourceError` when the disk cannot take it: nothing of it stays, and those
    before it are untouched. One of the same step gives way."""
    step = _step(target)
    assert step is not None, f"{target.name} is no checkpoint's name"
    needed = 0
    try:
        _make_parent(target.parent)
        with durable.replaced_folder(target) as draft:
            try:
                fill(draft)
                manifest.write(draft, step=step, facts=facts)
            finally:
                needed = size(draft)
    except OSError as error:
        before = [size(path) for path in checkpoints(target.parent).values()]
        needed = max([needed, *before])
        raise durable.no_room("the checkpoint", error, place=target, needed=needed) from error


def read(path: Path) -> Checkpoint:
    """A checkpoint after every size and sha256 in it was verified; `ModelError` names the file."""
    said = manifest.verify(path)
    if _step(path) not in (None, said["step"]):
        raise manifest.damaged(path, f"it is the checkpoint of step {said['step']}")
    return Checkpoint(path=path, step=said["step"], facts=said["facts"])


def newest_valid(folder: Path) -> Newest:
    """The newest checkpoint in a folder that is whole; changes nothing on the disk."""
    skipped: list[tuple[str, str]] = []
    for _, path in sorted(checkpoints(folder).items(), reverse=True):
        try:
            return Newest(checkpoint=read(path), skipped=tuple(skipped))
        except ModelError as error:
            skipped.append((path.name, error.faults[0].message))
    return Newest(checkpoint=None, skipped=tuple(skipped))


def retain(folder: Path, keep: set[int]) -> None:
    """Remove the checkpoints of all steps but `keep`; if none of those is there, none is removed.
    Each loses its name first, so that a kill leaves no half of one."""
    found = checkpoints(folder)
    if not found.keys() & keep:
        return
    for step, path in sorted(found.items()):
        if step not in keep:
            durable.discard(path)


def checkpoints(folder: Path) -> dict[int, Path]:
    """The checkpoints in a folder, whole or not, by step; anything else there is not looked at."""
    if not folder.is_dir():
        return {}
    found = {_step(path): path for path in folder.iterdir() if path.is_dir()}
    return {step: path for step, path in found.items() if step is not None}


def _step(path: Path) -> int | None:
    """The step that a name tells; None for a name that `name_of` does not give."""
    match = _NAME.fullmatch(path.name)
    step = int(match[1]) if match and not path.is_symlink() else None
    return step if step is not None and name_of(step) == path.name else None


def _make_parent(folder: Path) -> None:
    """The folder of the checkpoints, without what a killed process left in it."""
    if folder.is_dir():
        durable.sweep(folder)
        return
    durable.mkdir(folder)
    durable.flush(folder.parent)


def size(folder: Path) -> int:
    """Bytes of the files in a folder; none when it is absent."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
