"""From a source of the recipe to its rows: local files or hub, and which reader."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from qtune.data.faults import Faults
from qtune.data.readers import hub
from qtune.data.readers.document import delimiter_of
from qtune.errors import UsageError
from qtune.plan.rows import stored_rows
from qtune.recipe.kinds import HUB, OF_IMAGES, idle_keys
from qtune.recipe.sources import Found, find, shown
from qtune.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from qtune.data.row import Row
    from qtune.recipe.inputs import SourceSection

READERS = Registry(
    "kind of data file",
    {
        "json": "qtune.data.readers.json_list:read",
        "jsonl": "qtune.data.readers.jsonl:read",
        "csv": "qtune.data.readers.table:read_csv",
        "tsv": "qtune.data.readers.table:read_tsv",
        "txt": "qtune.data.readers.document:read",
        "parquet": "qtune.data.readers.parquet:read",
        "arrow": "qtune.data.readers.arrow:read",
        "images": "qtune.data.readers.images:read",
    },
)


def read(source: SourceSection, faults: Faults, *, streaming: bool = False) -> Iterator[Row]:
    """The rows of a source one by one; faults of single rows are recorded, others are `DataError`.

    `streaming`: a hub data set is read over the network instead of being stored first.
    """
    found = find(source)
    _refuse_unused(source, found)
    rows = hub.read(source, streaming=streaming) if found is None else _part(found, source, faults)
    return itertools.islice(rows, source.max_rows)


def first_rows(sources: Iterable[SourceSection], count: int) -> tuple[SourceSection, ...]:
    """The same sources, each cut to its first `count` rows."""
    return tuple(
        source.model_copy(update={"max_rows": min(source.max_rows or count, count)})
        for source in sources
    )


def label(source: SourceSection) -> str:
    """What messages call the source: its path below the working directory or from its root on,
    with the split where that is not the whole of train."""
    found = find(source)
    part = "" if found and source.split == "train" else f"[{source.split}]"
    if found is None:
        return f"{source.path}{part}"
    name = shown(found.root, found.root)
    what = "labels" if found.kind == OF_IMAGES else "files"
    return f"{name}{part}" if len(found.paths) == 1 else f"{name} ({len(found.paths)} {what}){part}"


def local_files(source: SourceSection) -> dict[str, Path] | None:
    """The local files of a source by their labels, in order; None for a hub id."""
    found = find(source)
    return None if found is None else dict(zip(found.labels(), found.paths, strict=True))


def manner(source: SourceSection) -> str:
    """How the rows were told apart, where the reader chose it; empty elsewhere."""
    found = find(source)
    if found is None or found.kind != "txt":
        return ""
    first = found.paths[0]
    delimiter = delimiter_of(first, first.name, source)
    if source.delimiter or source.column_names or delimiter is None:
        return ""
    return f"each of the first lines has one {delimiter!r}, which ends the prompt"


def _part(found: Found, source: SourceSection, faults: Faults) -> Iterator[Row]:
    """The rows that the split of a local source takes."""
    split = found.split
    own = source.model_copy(update={"split": "train" if found.picked else split.name})
    if split.whole:
        return _all(found, own, faults)
    if not split.relative:
        stop = None if split.stop is None else max(split.start or 0, split.stop)
        return itertools.islice(_all(found, own, faults), split.start or 0, stop)
    return itertools.islice(_all(found, own, faults), *split.bounds(_total(found, own)))


def _total(found: Found, source: SourceSection) -> int:
    """How many rows can be read: as the files say, or counted."""
    stored = [rows for path in found.paths if (rows := stored_rows(path, found.kind)) is not None]
    if len(stored) == len(found.paths):
        return sum(stored)
    return sum(1 for _ in _all(found, source, Faults()))


def _all(found: Found, source: SourceSection, faults: Faults) -> Iterator[Row]:
    reader = READERS[found.kind]
    for path, name in zip(found.paths, found.labels(), strict=True):
        yield from reader(path, name, source, faults)


def _refuse_unused(source: SourceSection, found: Found | None) -> None:
    """A key that this kind of source never reads is a mistake, not a wish to pass over."""
    for key, reason in idle_keys(source, HUB if found is None else found.kind):
        unset = type(source).model_fields[key].get_default(call_default_factory=True)
        if getattr(source, key) != unset and not (key == "split" and found and found.picked):
            what = f"a .{found.kind} file" if found else "a hub data set"
            raise UsageError(f"{key} has no effect on {what}", place=source.path, hint=reason)
