"""From a source of the recipe to its rows: local file or hub, and which reader."""

from __future__ import annotations

import difflib
import itertools
from pathlib import Path
from typing import TYPE_CHECKING

from qtune.data.readers import hub
from qtune.errors import DataError, UsageError
from qtune.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from qtune.data.faults import Faults
    from qtune.data.row import Row
    from qtune.recipe.sections import SourceSection

READERS = Registry(
    "kind of data file",
    {
        ".json": "qtune.data.readers.json_list:read",
        ".jsonl": "qtune.data.readers.jsonl:read",
        ".ndjson": "qtune.data.readers.jsonl:read",
        ".csv": "qtune.data.readers.table:read_csv",
        ".tsv": "qtune.data.readers.table:read_tsv",
        ".txt": "qtune.data.readers.document:read",
        ".parquet": "qtune.data.readers.parquet:read",
    },
)
_TABLES = {".csv", ".tsv", ".txt"}


def read(source: SourceSection, faults: Faults) -> Iterator[Row]:
    """Stream the rows of a source; faults of single rows are recorded, others are `DataError`."""
    path = local_path(source)
    kind = _kind(path) if path else ""
    _refuse_unused(source, kind)
    local = path is not None
    rows = READERS[kind](path, label(source), source, faults) if local else hub.read(source)
    return itertools.islice(rows, source.max_rows)


def first_rows(sources: Iterable[SourceSection], count: int) -> tuple[SourceSection, ...]:
    """The same sources, each cut to its first `count` rows."""
    return tuple(
        source.model_copy(update={"max_rows": min(source.max_rows or count, count)})
        for source in sources
    )


def label(source: SourceSection) -> str:
    """What messages call the source: the path below the working directory, or the file's name."""
    path = local_path(source)
    if path is None:
        return f"{source.path}[{source.split}]"
    absolute, here = path.absolute(), Path.cwd()
    return str(absolute.relative_to(here)) if absolute.is_relative_to(here) else path.name


def local_path(source: SourceSection) -> Path | None:
    """The local file that a source names, or None for a hub id; `DataError` when it is missing."""
    path = Path(source.path).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        raise DataError("is a folder; a file is needed", place=source.path, hint=_offer(path))
    said_local = source.path.startswith(("/", "./", "../", "~"))
    if said_local or _suffix(path) in READERS or path.is_absolute():
        raise DataError("no such file", place=source.path, hint=_nearest(path))
    return None


def _suffix(path: Path) -> str:
    """The kind of a file by its name, with .gz taken off."""
    name = path.name.lower().removesuffix(".gz")
    return Path(name).suffix


def _kind(path: Path) -> str:
    suffix = _suffix(path)
    if suffix in READERS and not (suffix == ".parquet" and path.suffix.lower() == ".gz"):
        return suffix
    raise DataError(
        f"unknown kind of file {suffix or path.name!r}",
        place=path.name,
        hint=f"known: {', '.join(READERS)}, text kinds also as .gz",
    )


def _refuse_unused(source: SourceSection, kind: str) -> None:
    """A key that this kind of source never reads is a mistake, not a wish to pass over."""
    unused = ["config", "revision"] if kind else []
    unused += [] if kind in _TABLES else ["delimiter", "column_names"]
    for key in unused:
        if getattr(source, key):
            what = f"a {kind} file" if kind else "a hub data set"
            raise UsageError(f"{key} has no effect on {what}", place=source.path, hint="remove it")


def _nearest(path: Path) -> str:
    """The files beside a missing one that are called something like it."""
    if not path.parent.is_dir():
        return f"there is no folder {path.parent} either"
    names = [entry.name for entry in path.parent.iterdir()]
    close = difflib.get_close_matches(path.name, names, n=2)
    return f"did you mean {' or '.join(close)}?" if close else "paths are relative to the recipe"


def _offer(folder: Path) -> str:
    files = sorted(entry.name for entry in folder.iterdir() if _suffix(entry) in READERS)
    return f"it holds {', '.join(files[:5])}" if files else "it holds no data file"
