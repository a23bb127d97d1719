"""Files and folders that are whole or absent: written beside, flushed to the disk, renamed."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from qtune.errors import ResourceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file; a crash or a full disk leaves the old one or none, never half of it."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with draft.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(path)
    except BaseException:
        with suppress(OSError):  # where nothing can be written there is nothing to remove
            draft.unlink(missing_ok=True)
        raise
    flush(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write a whole text file."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write a whole JSON file, indented for people; NaN is refused."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def make_folder(target: Path, fill: Callable[[Path], object]) -> None:
    """A new folder made and filled by `fill`; it appears under its name only when it is whole."""
    with new_folder(target) as draft:
        fill(draft)


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A hidden place beside `target` to make a folder at, renamed to it at the end of the block;
    removed when anything fails. An empty folder that stands at `target` gives way."""
    draft = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        yield draft
        flush_tree(draft)
        if target.is_dir():
            target.rmdir()  # if it is no longer empty, this fails and nothing is lost
        draft.rename(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    flush(target.parent)


def require_writable(path: Path) -> None:
    """`ResourceError` before any work is done if nothing can be made at `path`."""
    there = path.absolute()
    while not there.exists():
        there = there.parent
    reason = "" if os.access(there, os.W_OK) else f"{there} is not writable"
    if there != path.absolute() and not there.is_dir():
        reason = f"{there} is a file"
    if reason:
        raise ResourceError(
            f"cannot be written: {reason}", place=str(path), hint="name another place"
        )


def flush_tree(folder: Path) -> None:
    """Flush everything in a folder, and the folder itself, to the disk."""
    for path in [*folder.rglob("*"), folder]:
        flush(path)


def flush(path: Path) -> None:
    """Flush one file, or the names in one folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
