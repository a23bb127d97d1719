"""One process a run folder: a lock that the system frees however the process ends."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import time
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING

from qtune.durable import naming
from qtune.errors import OutputError, ResourceError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAME = ".lock"
_TRIES, _PAUSE = 5, 0.05  # another process may be looking, or just going
_HELD: set[int] = set()


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Hold a folder for this process; `OutputError` names the process that holds it already."""
    path = folder / NAME
    handle = _take(path)
    _close_in_children()
    _HELD.add(handle)
    try:
        with naming(folder):
            _sign(handle)
        yield
    finally:
        if handle in _HELD:  # not in a child that unwinds
            # its name goes first: who opened it before finds another file, or none, in its place
            with suppress(OSError):
                path.unlink()
            _HELD.discard(handle)
            os.close(handle)


def _take(path: Path) -> int:
    """The open and locked file."""
    for attempt in range(_TRIES):
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise ResourceError(f"cannot be locked: {error.strerror}", place=str(path)) from error
        if _locked(handle, path):
            return handle
        os.close(handle)
        if attempt + 1 < _TRIES:
            time.sleep(_PAUSE)
    raise OutputError(
        f"the folder is in use by {_holder(path)}",
        place=str(path.parent),
        hint="wait for it, stop it, or name another folder with -o",
    )


def _locked(handle: int, path: Path) -> bool:
    """Whether the lock is ours, on the file that stands at `path` and no former one."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(handle), path.stat())
    except (BlockingIOError, FileNotFoundError):
        return False
    except OSError as error:
        os.close(handle)
        raise ResourceError(
            f"cannot be locked: {error.strerror}",
            place=str(path),
            hint="name a folder on a disk that can lock files with -o",
        ) from error


def _sign(handle: int) -> None:
    """Say who holds the lock, for the message that others get."""
    started = datetime.now(UTC).isoformat(timespec="seconds")
    signed = {"pid": os.getpid(), "host": platform.node(), "start": started}
    os.ftruncate(handle, 0)
    os.pwrite(handle, json.dumps(signed).encode(), 0)


def _holder(path: Path) -> str:
    try:
        said = json.loads(path.read_bytes())
        return f"process {said['pid']} on {said['host']} since {said['start']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


@cache
def _close_in_children() -> None:
    """A forked worker that outlives this process must not keep the lock."""
    os.register_at_fork(after_in_child=_let_go)


def _let_go() -> None:
    for handle in _HELD:
        os.close(handle)
    _HELD.clear()
