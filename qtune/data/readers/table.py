"""Tables in text: csv and tsv with quotes, and lines cut at a delimiter of any length."""

from __future__ import annotations

import csv
from collections import Counter
from typing import TYPE_CHECKING

from qtune.data.readers.opening import text_lines
from qtune.data.row import Row
from qtune.errors import DataError
from qtune.recipe.lines import LONGEST_FIELD, meant

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from qtune.data.faults import Faults
    from qtune.recipe.inputs import SourceSection

_HINT = "put the field in double quotes and double the quotes inside it"
Record = tuple[int, list[str]]


def read_csv(path: Path, label: str, source: SourceSection, faults: Faults) -> Iterator[Row]:
    """A .csv file: commas, or the delimiter of the source."""
    delimiter = meant(source.delimiter) or ","
    return _read(path, label, delimiter, source, faults)


def read_tsv(path: Path, label: str, source: SourceSection, faults: Faults) -> Iterator[Row]:
    """A .tsv file: tabs, or the delimiter of the source."""
    delimiter = meant(source.delimiter) or "\t"
    return _read(path, label, delimiter, source, faults)


def read_delimited(path: Path, label: str, source: SourceSection, faults: Faults) -> Iterator[Row]:
    """A .txt table: no quotes; without a delimiter each line is one column."""
    lines = text_lines(path, label, faults)
    return _rows(
        _split(lines, meant(source.delimiter), len(source.column_names)), label, source, faults
    )


def _read(
    path: Path, label: str, delimiter: str, source: SourceSection, faults: Faults
) -> Iterator[Row]:
    lines = text_lines(path, label, faults)
    if len(delimiter) > 1:
        records = _split(lines, delimiter, len(source.column_names))
    else:
        records = _quoted(lines, delimiter, label, faults)
    return _rows(records, label, source, faults)


def _split(lines: Iterator[str], delimiter: str | None, columns: int) -> Iterator[Record]:
    """Lines cut at the first delimiters, so that the last column may hold more of them."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        parts = [line] if delimiter is None else line.split(delimiter, columns - 1)
        columns = columns or len(parts)
        yield number, parts


def _quoted(lines: Iterator[str], delimiter: str, label: str, faults: Faults) -> Iterator[Record]:
    """Records of a csv file, which may run over several lines, with the line they begin on."""
    csv.field_size_limit(LONGEST_FIELD)
    reader = csv.reader((f"{line}\n" for line in lines), delimiter=delimiter, strict=True)
    number = 1
    while True:
        try:
            record = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            faults.add(_reason(error), place=f"{label}:{number}", hint=_HINT)
            faults.cut_off |= "unexpected end" in str(error)
            number = reader.line_num + 1
            continue
        if record:
            yield number, record
        number = reader.line_num + 1


def _reason(error: csv.Error) -> str:
    open_quote = "unexpected end" in str(error) or "larger than field limit" in str(error)
    return f"not valid csv: {'a quote is never closed' if open_quote else error}"


def _rows(
    records: Iterator[Record], label: str, source: SourceSection, faults: Faults
) -> Iterator[Row]:
    names = list(source.column_names)
    for number, record in records:
        if not names:
            names = _header(record, f"{label}:{number}")
        elif len(record) == len(names):
            yield Row(label, number, dict(zip(names, record, strict=True)))
        else:
            expected = f"{len(names)} ({', '.join(names)})"
            message = f"{len(record)} columns where {expected} are needed"
            faults.add(message, place=f"{label}:{number}")


def _header(record: list[str], place: str) -> list[str]:
    names = [name.strip() for name in record]
    doubled = [name for name, times in Counter(names).items() if times > 1]
    if doubled:
        raise DataError(
            f"column {doubled[0]!r} stands twice in the header",
            place=place,
            hint="name the columns apart, or give column_names if the file has no header",
        )
    return names
