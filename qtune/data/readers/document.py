"""A text file: one document, or a table of lines when columns are named."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtune.data.readers.opening import whole_text
from qtune.data.readers.table import read_delimited
from qtune.data.row import Row
from qtune.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from qtune.data.faults import Faults
    from qtune.recipe.sections import SourceSection


def read(path: Path, label: str, source: SourceSection, faults: Faults) -> Iterator[Row]:
    """The whole file as the column `text`; lines when `delimiter` or `column_names` is given."""
    if source.delimiter or source.column_names:
        yield from read_delimited(path, label, source, faults)
        return
    try:
        text = whole_text(path, label)
    except DataError as error:
        faults.add_error(error)
        return
    if text.strip():
        yield Row(label, 1, {"text": text.replace("\r\n", "\n")})
