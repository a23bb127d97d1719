"""Files and folders that are whole or absent: written beside, flushed to the disk, renamed.

Every operation that changes the disk is told to `watching`'s callback before it is done, so that a
test can end the process, or fill the disk, at each of them.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from qtune.errors import ResourceError
from qtune.sizes import human

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

BLOCK = 1 << 24  # bytes written at once
_WATCHER: ContextVar[Callable[[str, Path], None] | None] = ContextVar("watcher", default=None)
_LEFTOVER = re.compile(r"\..+\.[0-9a-f]{8}\.(draft|removed)")


@contextmanager
def watching(callback: Callable[[str, Path], None]) -> Iterator[None]:
    """Call `callback(operation, path)` before each mkdir, open, write, fsync, rename, unlink and
    rmdir of this module; what it raises happens in place of the operation."""
    token = _WATCHER.set(callback)
    try:
        yield
    finally:
        _WATCHER.reset(token)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file; a crash or a full disk leaves the old one or none, never half of it."""
    write_parts(path, [content])


def write_parts(path: Path, parts: Iterable[bytes | memoryview]) -> None:
    """Write a whole file of parts that need not be in memory together."""
    draft = hidden(path, "draft")
    with naming(path):
        try:
            with new_file(draft) as write:
                for part in parts:
                    write(part)
            rename(draft, path)
        except BaseException:
            with suppress(OSError):  # where nothing can be written there is nothing to remove
                unlink(draft)
            raise
        flush(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write a whole text file; file names that are no UTF-8 stand in it with their bytes as \\x."""
    write_bytes(path, text.encode(errors="backslashreplace"))


def write_json(path: Path, value: Any) -> None:
    """Write a whole JSON file, indented for people; NaN is refused."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


@contextmanager
def new_file(path: Path) -> Iterator[Callable[[bytes | memoryview], None]]:
    """A file that must not exist yet; the block gets a function that appends bytes to it, and at
    the end of the block they are on the disk."""
    _announce("open", path)
    with path.open("xb", buffering=0) as stream:

        def write(content: bytes | memoryview) -> None:
            rest = memoryview(content)
            while rest:
                _announce("write", path)
                rest = rest[stream.write(rest[:BLOCK]) :]

        yield write
        _announce("fsync", path)
        os.fsync(stream.fileno())


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """An `OSError` of the block names `path`: a full disk names nothing, others a draft."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise


def append_text(path: Path, text: str) -> None:
    """Add to the end of a text file; it is on its way to the disk when this returns."""
    _announce("write", path)
    with naming(path), path.open("a", encoding="utf-8") as stream:
        stream.write(text)


def copy(path: Path, target: Path) -> None:
    """Copy a file to one that must not exist yet."""
    with path.open("rb") as stream, new_file(target) as write:
        while content := stream.read(BLOCK):
            write(content)


def sha256_of(path: Path) -> str:
    """What a file holds now, in hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def make_folder(target: Path, fill: Callable[[Path], object]) -> None:
    """A new folder made and filled by `fill`; it appears under its name only when it is whole."""
    with new_folder(target) as draft:
        fill(draft)


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A hidden place beside `target` to make a folder at, renamed to it at the end of the block;
    removed when anything fails. An empty folder that stands at `target` gives way."""
    draft = hidden(target, "draft")
    try:
        yield draft
        flush_tree(draft)
        if target.is_dir():
            rmdir(target)  # if it is no longer empty, this fails and nothing is lost
        rename(draft, target)
    finally:
        _drop(draft)
    flush(target.parent)


def discard(folder: Path) -> None:
    """Take a folder away, first its name and then its files: under its name it is never seen half
    removed. What cannot be removed waits, hidden, for `sweep`."""
    removed = hidden(folder, "removed")
    rename(folder, removed)
    try:
        flush(folder.parent)
    finally:
        _drop(removed)


@contextmanager
def replaced_folder(target: Path) -> Iterator[Path]:
    """A new hidden folder to fill, which takes the place of `target` at the end of the block;
    when anything fails, what stood there stays."""
    draft = hidden(target, "draft")
    try:
        mkdir(draft)
        yield draft
        flush_tree(draft)
        put(draft, target)
    except BaseException:
        _drop(draft)
        raise


def put(draft: Path, target: Path) -> None:
    """Give a whole folder its name; one that stands there gives way, or stays if that fails.
    A kill between the two renames leaves neither under that name."""
    if not target.is_dir():
        rename(draft, target)
        flush(target.parent)
        return
    removed = hidden(target, "removed")
    rename(target, removed)
    try:
        rename(draft, target)
    except BaseException:
        rename(removed, target)
        raise
    try:
        flush(target.parent)
    finally:
        _drop(removed)


def sweep(folder: Path) -> None:
    """Remove what a process that was killed in this module left in a folder."""
    for path in sorted(folder.iterdir()):
        if is_leftover(path):
            with suppress(OSError):  # the next sweep tries again
                remove_tree(path) if path.is_dir() else unlink(path)


def is_leftover(path: Path) -> bool:
    """Whether a name is one that this module gives to what is not, or no longer, there."""
    return _LEFTOVER.fullmatch(path.name) is not None


def hidden(path: Path, state: str) -> Path:
    """A new name beside `path`, for its "draft" or for what is being "removed"."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.{state}")


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


def no_room(what: str, error: OSError, *, place: Path, needed: int) -> ResourceError:
    """The error for something that could not be written, with what it takes and what there is."""
    return ResourceError(
        f"cannot write {what}: {error.strerror or error}; it needs {human(needed)} or more, "
        f"{human(free_bytes(place))} are free",
        place=str(place),
        hint="nothing that was whole is lost; free some space and go on from there",
    )


def free_bytes(path: Path) -> int:
    """What is free on the disk where `path` is, or would be."""
    there = next(item for item in (path, *path.absolute().parents) if item.is_dir())
    return shutil.disk_usage(there).free


def flush_tree(folder: Path) -> None:
    """Flush everything in a folder, and the folder itself, to the disk."""
    for path in [*sorted(folder.rglob("*")), folder]:
        flush(path)


def flush(path: Path) -> None:
    """Flush one file, or the names in one folder, to the disk."""
    _announce("fsync", path)
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:  # some network disks keep names by themselves and know no such call
        if error.errno != errno.EINVAL or not path.is_dir():
            raise
    finally:
        os.close(handle)


def mkdir(folder: Path) -> None:
    """Make a folder that must not exist yet."""
    _announce("mkdir", folder)
    folder.mkdir()


def rename(path: Path, target: Path) -> None:
    """Give a file or folder another name; a file at `target` is replaced."""
    _announce("rename", path)
    path.replace(target)


def unlink(path: Path) -> None:
    """Remove a file."""
    _announce("unlink", path)
    path.unlink()


def rmdir(folder: Path) -> None:
    """Remove an empty folder."""
    _announce("rmdir", folder)
    folder.rmdir()


def remove_tree(folder: Path) -> None:
    """Remove a folder and everything in it; links are removed, not followed."""
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.is_symlink():
            remove_tree(path)
        else:
            unlink(path)
    rmdir(folder)


def _drop(folder: Path) -> None:
    """Remove a hidden folder, if it is there; what cannot be removed waits for `sweep`."""
    with suppress(OSError):
        remove_tree(folder)


def _announce(operation: str, path: Path) -> None:
    callback = _WATCHER.get()
    if callback is not None:
        callback(operation, path)
