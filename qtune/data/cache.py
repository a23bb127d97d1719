"""Encoded rows kept by the content of everything that made them, so that a start reads no row."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtune.data import content
from qtune.data.pictures import Pictures
from qtune.data.store import Columns
from qtune.durable import new_folder, sha256_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from transformers import PreTrainedTokenizerBase

    from qtune.recipe.inputs import SourceSection
    from qtune.recipe.sections import Recipe

_FORMAT = 1
_DRAFT_SECONDS = 24 * 3600
_UNUSED_SECONDS = 30 * 24 * 3600
_MOST_BYTES = 20_000_000_000
_LIBRARIES = ("transformers", "tokenizers", "jinja2")


def key_of(
    sources: Sequence[SourceSection],
    recipe: Recipe,
    tokenizer: PreTrainedTokenizerBase | Pictures,
    *,
    split_by: str | None,
) -> str | None:
    """A hash of the bytes of all files, of what `datasets` calls the content of hub data sets, and
    of every setting that shapes the rows; None when one of them cannot be told."""
    settings = content.settings_of(recipe, tokenizer)
    on_hub = content.hub_contents(sources)
    if settings[0] is None or on_hub is None:
        return None
    parts = [
        _FORMAT,
        [version(name) for name in _LIBRARIES],
        settings,
        content.sources_of(sources),
        on_hub,
        split_by,
        [sha256_of(path) for path in _own_files()],
        content.images_of(sources) if isinstance(tokenizer, Pictures) else None,
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def home(cache_dir: str | None) -> Path:
    """Where entries are kept."""
    if cache_dir:
        return Path(cache_dir).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "qtune" / "rows"


def find(folder: Path, key: str) -> tuple[Columns, dict[str, Any]] | None:
    """The rows and notes of a complete entry."""
    found = Columns.open(folder / key)
    if found:
        with suppress(OSError):  # a cache that is only readable is of use too
            os.utime(folder / key)
    return found


def writable(folder: Path) -> bool:
    """Whether entries can be made in a folder; it is made when it is absent."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        Path(tempfile.mkdtemp(dir=folder)).rmdir()
    except OSError:
        return False
    return True


def make(
    folder: Path, key: str, fill: Callable[[Columns], dict[str, Any]], still: Callable[[], bool]
) -> tuple[Columns, dict[str, Any]]:
    """A new entry made by `fill`, which returns its notes; it is found by others when it is whole.

    `still` says whether the files are what the key was made of; if not, the entry is not kept.
    """
    entry = folder / key
    if entry.exists():
        shutil.rmtree(entry, ignore_errors=True)  # it was not complete
    with suppress(OSError):
        _clear(folder)
    made: tuple[Columns, dict[str, Any]] | None = None
    try:
        # encoded where it will stay: a million rows need their place once, and no copying
        with new_folder(entry) as draft:
            draft.mkdir()
            columns = Columns(draft)
            notes = fill(columns)
            columns.finish(notes)
            made = columns, notes
            if not still():
                raise _ChangedError
    except (_ChangedError, OSError):
        # another process may have made the same entry meanwhile, or the disk be full
        if made is None:
            raise
    return Columns.open(entry) or made


class _ChangedError(Exception):
    """The files are no longer those that the key was made of."""


def _own_files() -> list[Path]:
    """The code that makes rows: another version of it may make others."""
    return sorted(Path(__file__).parent.rglob("*.py"))


def _clear(folder: Path) -> None:
    """Remove entries that nobody used for long, then the oldest while there is too much.

    On POSIX an entry whose files are mapped by a running process stays readable for it.
    """
    for left in folder.glob(".*.partial"):  # by a process that was killed
        if left.stat().st_mtime < time.time() - _DRAFT_SECONDS:
            shutil.rmtree(left, ignore_errors=True)
    entries = [path for path in folder.iterdir() if path.is_dir() and len(path.name) == 64]
    entries.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    total = 0
    for entry in entries:
        total += sum(path.stat().st_size for path in entry.iterdir())
        if total > _MOST_BYTES or entry.stat().st_mtime < time.time() - _UNUSED_SECONDS:
            shutil.rmtree(entry, ignore_errors=True)
