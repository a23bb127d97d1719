"""Arrow IPC files and streams, as `datasets` caches and saves them, read batch by batch."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, BinaryIO

from qtune.data.readers.binary import open_binary, rows_of
from qtune.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from qtune.data.faults import Faults
    from qtune.data.row import Row
    from qtune.recipe.inputs import SourceSection

_FILE_MARK = b"ARROW1"
_STREAM_END = b"\0\0\0\0"


def read(path: Path, label: str, _: SourceSection, __: Faults) -> Iterator[Row]:
    """The rows of an .arrow file, numbered from 1 (a binary file has no lines)."""
    with open_binary(path, label, "arrow") as stream:
        yield from rows_of(_batches(stream, label), label)


def _batches(stream: BinaryIO, label: str) -> Iterator[Any]:
    """The record batches of a file with a footer, or of a stream that must not be cut."""
    import pyarrow.ipc as ipc  # type: ignore[import-untyped]  # it carries no types

    is_file = stream.read(len(_FILE_MARK)) == _FILE_MARK
    stream.seek(0)
    if is_file:
        opened = ipc.open_file(stream)
        yield from map(opened.get_batch, range(opened.num_record_batches))
        return
    stream.seek(max(0, stream.seek(0, os.SEEK_END) - len(_STREAM_END)))
    whole = stream.read(len(_STREAM_END)) == _STREAM_END
    stream.seek(0)
    yield from ipc.open_stream(stream)
    if not whole:
        raise DataError("not a whole arrow file: its end is missing", place=label)
