"""Counting training rows without reading them into memory, where that is cheap."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from math import floor
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from qtune.recipe.sections import DataSection, SourceSection

# A second of reading at most; beyond, the data is counted when it is read.
MAX_LINES_BYTES = 400_000_000
MAX_JSON_BYTES = 60_000_000


@dataclass(frozen=True)
class RowCount:
    """Training rows, or why they are not known."""

    rows: int | None
    reason: str


class _Unknown(Exception):  # noqa: N818 - not a fault
    """The rows of a source cannot be counted cheaply."""


def count_rows(data: DataSection) -> RowCount:
    """Training rows before any is dropped, less the ones held out by val_size."""
    try:
        rows = sum(_count(source) for source in data.train)
    except _Unknown as unknown:
        return RowCount(None, f"{unknown}; unknown until the data is read")
    held_out = 0 if data.eval else min(rows, held_out_rows(data.val_size, rows))
    return RowCount(rows - held_out, "rows in the files, before any is dropped")


def held_out_rows(val_size: float, rows: int) -> int:
    """Rows that val_size holds out of `rows`: a share is rounded, and is one row at least."""
    if not val_size:
        return 0
    return int(val_size) if val_size >= 1 else max(1, floor(val_size * rows + 0.5))


def _count(source: SourceSection) -> int:
    path = Path(source.path)
    if not path.is_file():
        raise _Unknown(f"{source.path} is not a local file")
    kind = path.suffix.lower()
    if source.format == "text" or (kind == ".txt" and source.delimiter is None):
        raise _Unknown(f"{path.name} is plain text, cut into pieces")
    if path.stat().st_size > (MAX_JSON_BYTES if kind == ".json" else MAX_LINES_BYTES):
        raise _Unknown(f"{path.name} is large")
    try:
        rows = _count_file(path, kind, source)
    except (OSError, ValueError, csv.Error) as error:
        raise _Unknown(f"{path.name} cannot be counted ({type(error).__name__})") from None
    return rows if source.max_rows is None else min(rows, source.max_rows)


def _count_file(path: Path, kind: str, source: SourceSection) -> int:
    if kind in (".jsonl", ".txt"):
        return _count_lines(path)
    if kind == ".json":
        return _count_json(path)
    if kind in (".csv", ".tsv"):
        delimiter = source.delimiter or ("," if kind == ".csv" else "\t")
        if len(delimiter) != 1:
            return _count_lines(path) - (not source.column_names)
        with path.open(encoding="utf-8-sig", newline="") as file:
            records = sum(1 for record in csv.reader(file, delimiter=delimiter) if record)
        return max(0, records - (not source.column_names))
    raise _Unknown(f"{path.name} is not a file of lines")


def _count_lines(path: Path) -> int:
    with path.open("rb") as file:
        return _filled(file)


def _filled(lines: Iterable[bytes]) -> int:
    return sum(1 for line in lines if line.strip())


def _count_json(path: Path) -> int:
    """A list of rows, or one row a line."""
    text = path.read_bytes()
    try:
        rows = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg.startswith("Extra data"):
            return _filled(text.splitlines())
        raise
    if not isinstance(rows, list):
        raise _Unknown(f"{path.name} is not a list")
    return len(rows)
