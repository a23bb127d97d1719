"""A text file: one document, or a table of lines when columns are named or plainly there."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from qtune.data.faults import Faults
from qtune.data.readers.opening import text_lines, text_pieces
from qtune.data.readers.table import read_delimited
from qtune.data.row import Row
from qtune.errors import DataError
from qtune.recipe.lines import COLUMNS, delimiter_in

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from qtune.recipe.inputs import SourceSection

# A longer text comes in parts, so that no file need fit into memory.
_LONGEST = 1 << 24


def read(path: Path, label: str, source: SourceSection, faults: Faults) -> Iterator[Row]:
    """The whole file as the column `text`; its lines when columns are named, or when `delimiter_of`
    finds two."""
    if source.delimiter or source.column_names:
        yield from read_delimited(path, label, source, faults)
        return
    try:
        delimiter = delimiter_of(path, label, source)
        if delimiter:
            table = source.model_copy(update={"delimiter": delimiter, "column_names": COLUMNS})
            for row in read_delimited(path, label, table, faults):
                yield _as_it_stands(row, delimiter)
        else:
            yield from _parts(path, label)
    except DataError as error:
        faults.add_error(error)
        faults.cut_off = True


def delimiter_of(path: Path, label: str, source: SourceSection) -> str | None:
    """What stands once in each of the first lines; None for a document, or format: text."""
    if source.format == "text":
        return None
    with closing(text_lines(path, label, Faults())) as lines:
        return delimiter_in(lines)


def _as_it_stands(row: Row, delimiter: str) -> Row:
    """Prompt and completion that make the line again when they are joined: the model must see
    where the prompt ends."""
    prompt, completion = (row.values[name] for name in COLUMNS)
    values = {"prompt": prompt + delimiter, "completion": completion.rstrip()}
    return row._replace(values=values)


def _parts(path: Path, label: str) -> Iterator[Row]:
    """The text, cut behind a line (or a word) where it is longer than can be held."""
    text, line = "", 1
    for piece in text_pieces(path, label):
        text += piece
        cut = max(text.rfind("\n"), 0) or text.rfind(" ")
        if len(text) >= _LONGEST and cut >= 0:
            yield from _row(label, line, text[: cut + 1])
            line += text.count("\n", 0, cut + 1)
            text = text[cut + 1 :]
    yield from _row(label, line, text)


def _row(label: str, line: int, text: str) -> Iterator[Row]:
    if text.strip():
        yield Row(label, line, {"text": text.replace("\r\n", "\n")})
