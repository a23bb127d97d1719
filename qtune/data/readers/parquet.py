"""Parquet files, read in batches of rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtune.data.readers.binary import open_binary, rows_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from qtune.data.faults import Faults
    from qtune.data.row import Row
    from qtune.recipe.inputs import SourceSection

_ROWS = 1024
_BUFFER = 1 << 20


def read(path: Path, label: str, _: SourceSection, __: Faults) -> Iterator[Row]:
    """The rows of a .parquet file, numbered from 1 (a binary file has no lines)."""
    import pyarrow.parquet as parquet  # type: ignore[import-untyped]  # it carries no types

    with open_binary(path, label, "parquet") as stream:
        # pre_buffer would fetch the whole file at once, and no buffer whole columns of a row group
        table = parquet.ParquetFile(stream, pre_buffer=False, buffer_size=_BUFFER)
        yield from rows_of(table.iter_batches(batch_size=_ROWS), label)
