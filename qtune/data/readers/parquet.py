"""Parquet files, read in batches of rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtune.data.readers.opening import open_bytes, refuse_pointer
from qtune.data.row import Row
from qtune.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from qtune.data.faults import Faults
    from qtune.recipe.sections import SourceSection

_ROWS = 1024


def read(path: Path, label: str, _: SourceSection, __: Faults) -> Iterator[Row]:
    """The rows of a .parquet file, numbered from 1 (a binary file has no lines)."""
    import pyarrow as arrow  # type: ignore[import-untyped]  # it carries no types
    import pyarrow.parquet as parquet  # type: ignore[import-untyped]

    with open_bytes(path, label) as stream:
        refuse_pointer(stream.read(64), label)
    number = 0
    try:
        with parquet.ParquetFile(path) as table:
            for batch in table.iter_batches(batch_size=_ROWS):
                for values in batch.to_pylist():
                    number += 1
                    yield Row(label, number, values)
    except (arrow.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"not a readable parquet file: {reason}", place=label) from None
