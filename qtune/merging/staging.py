"""An output folder that appears whole or not at all."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

from qtune.durable import new_folder, require_writable
from qtune.errors import OutputError, ResourceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

SLACK = 64 * 2**20  # tokenizer, config and card


def check_target(target: Path, *, protected: Sequence[Path]) -> None:
    """Raise `OutputError` if `target` exists or lies in one of the folders that are read."""
    place = target.resolve()
    for folder in protected:
        source = folder.resolve()
        if place == source or source in place.parents:
            raise OutputError(
                "the output lies inside a folder that the merge reads",
                place=str(target),
                hint="name a folder outside the base and the run with -o",
            )
    if target.is_symlink() or (target.exists() and not _is_empty_folder(target)):
        raise OutputError(
            "the output exists already",
            place=str(target),
            hint="name another with -o, or remove it; qtune overwrites nothing",
        )
    require_writable(target)


def check_space(target: Path, *, needed: int) -> None:
    """Raise `ResourceError` unless the disk of `target` has room for `needed` bytes."""
    parent = target.resolve().parent
    while not parent.exists():
        parent = parent.parent
    free = shutil.disk_usage(parent).free
    if free < needed + SLACK:
        raise ResourceError(
            f"the merged model needs {(needed + SLACK) / 1e9:.2f} GB of disk, {free / 1e9:.2f} GB "
            "are free",
            place=str(target),
            hint="free some space, or name a folder on another disk with -o",
        )


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """A hidden folder beside `target`, renamed to it at the end; removed when anything fails."""
    hint = ""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with new_folder(target) as staging:
            staging.mkdir()
            hint = "nothing was kept"
            yield staging
    except OSError as error:
        raise ResourceError(
            f"cannot write the output: {error.strerror}", place=str(target), hint=hint
        ) from error


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())
