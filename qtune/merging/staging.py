"""An output folder that appears whole or not at all."""

from __future__ import annotations

import re
import shutil
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from qtune.durable import (
    flush,
    flush_tree,
    new_folder,
    remove_tree,
    rename,
    require_writable,
    rmdir,
)
from qtune.errors import OutputError, QtuneError, ResourceError
from qtune.runs import lock
from qtune.sizes import human

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

SLACK = 64 * 2**20  # tokenizer, config and card
_SHORT = 8  # of a key, in a folder's name


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
            f"the merged model needs {human(needed + SLACK)} of disk, {human(free)} are free",
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


@contextmanager
def resumable(target: Path, key: str, *, kept: Callable[[Path], bool]) -> Iterator[Path]:
    """As `staged`, at a hidden place that the same work (by its key) finds again after a kill.

    An error of qtune clears it away, as it would come again; after a signal or a full disk it
    stays if `kept` says that something in it is finished.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    place = target.with_name(f".{target.name}.{key[:_SHORT]}.merge")
    _clear_others(target, place)
    try:
        place.mkdir(exist_ok=True)
        with lock.hold(place):
            try:
                yield place
            except BaseException as error:
                if isinstance(error, QtuneError) or not kept(place):
                    with suppress(OSError):
                        remove_tree(place)
                raise
        flush_tree(place)
        if target.is_dir():
            rmdir(target)  # if it is no longer empty, this fails and nothing is lost
        rename(place, target)
        flush(target.parent)
    except OSError as error:
        hint = "what is finished stays: make room and run it again" if place.is_dir() else ""
        raise ResourceError(
            f"cannot write the output: {error.strerror}", place=str(target), hint=hint
        ) from error


def _clear_others(target: Path, place: Path) -> None:
    """Remove what killed processes left of other merges to the same folder."""
    pattern = re.compile(rf"\.{re.escape(target.name)}\.[0-9a-f]{{{_SHORT}}}\.merge")
    for path in target.parent.iterdir():
        if path == place or not pattern.fullmatch(path.name) or not path.is_dir():
            continue
        with suppress(OutputError, OSError):  # another process is at it
            with lock.hold(path):
                pass
            remove_tree(path)


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())
