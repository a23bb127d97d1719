"""Counting training rows without reading them into memory, where that is cheap."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from dataclasses import dataclass
from math import floor
from typing import TYPE_CHECKING, BinaryIO, cast

from qtune.errors import QtuneError
from qtune.recipe.kinds import OF_IMAGES, is_image
from qtune.recipe.lines import LONGEST_FIELD, delimiter_in, meant
from qtune.recipe.sources import find
from qtune.recipe.splits import list_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from qtune.recipe.inputs import DataSection, SourceSection

# A second of reading at most; beyond, the data is counted when it is read.
MAX_LINES_BYTES = 400_000_000
MAX_JSON_BYTES = 60_000_000
_PACKED = 6  # text in gzip grows about so much


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


def stored_rows(path: Path, kind: str) -> int | None:
    """The rows that a binary file says it has; None for text, and for what is no such file."""
    if kind not in _FOOTERS:
        return None
    import pyarrow as arrow  # type: ignore[import-untyped]  # it carries no types

    try:
        return _FOOTERS[kind](path)
    except (arrow.ArrowException, OSError):
        return None


def held_out_rows(val_size: float, rows: int) -> int:
    """Rows that val_size holds out of `rows`: a share is rounded, and is one row at least."""
    if not val_size:
        return 0
    return int(val_size) if val_size >= 1 else max(1, floor(val_size * rows + 0.5))


def _count(source: SourceSection) -> int:
    try:
        found = find(source)
    except QtuneError as error:
        raise _Unknown(f"{source.path} does not open ({error.faults[0].message})") from None
    if found is None:
        raise _Unknown(f"{source.path} is not a local file")
    name = found.root.name
    most = MAX_JSON_BYTES if found.kind == "json" else MAX_LINES_BYTES
    if found.kind not in _FOOTERS and sum(map(_unpacked, found.paths)) > most:
        raise _Unknown(f"{name} is large")
    own = source.model_copy(update={"split": "train" if found.picked else found.split.name})
    try:
        rows = sum(_count_file(path, found.kind, own) for path in found.paths)
    except (
        OSError,
        EOFError,
        ValueError,
        RecursionError,
        zlib.error,
        csv.Error,
        QtuneError,
    ) as error:
        raise _Unknown(f"{name} cannot be counted ({type(error).__name__})") from None
    start, stop = found.split.bounds(rows)
    return min(stop - start, source.max_rows or rows)


def _unpacked(path: Path) -> int:
    """The bytes of a file, as far as can be told of a packed one."""
    return path.stat().st_size * (_PACKED if path.suffix.lower() == ".gz" else 1)


def _count_file(path: Path, kind: str, source: SourceSection) -> int:
    if source.format == "text":
        raise _Unknown(f"{path.name} is plain text, cut into pieces")
    if source.format == "self-instruct":
        raise _Unknown(f"{path.name} holds several examples a row")
    if kind == OF_IMAGES:
        return sum(is_image(entry) for entry in path.iterdir())
    if kind in _FOOTERS:
        rows = stored_rows(path, kind)
        if rows is None:
            raise _Unknown(f"{path.name} is no whole {kind} file")
        return rows
    with path.open("rb") as plain, _opened(path, plain) as stream:
        if kind == "txt" and _is_document(stream, source):
            raise _Unknown(f"{path.name} is plain text, cut into pieces")
        if kind == "json":
            return _in_json(stream.read(), path, source)
        if kind in ("csv", "tsv"):
            return _in_table(stream, kind, source)
        headed = kind == "txt" and source.delimiter and not source.column_names
        return max(0, _filled(stream) - bool(headed))


def _opened(path: Path, plain: BinaryIO) -> BinaryIO:
    return cast("BinaryIO", gzip.open(plain)) if path.suffix.lower() == ".gz" else plain


def _is_document(stream: BinaryIO, source: SourceSection) -> bool:
    if source.delimiter or source.column_names:
        return False
    found = delimiter_in(line.decode(errors="replace") for line in stream)
    stream.seek(0)
    return found is None


def _in_table(stream: BinaryIO, kind: str, source: SourceSection) -> int:
    delimiter = meant(source.delimiter) or ("," if kind == "csv" else "\t")
    if len(delimiter) > 1:
        rows = _filled(stream)
    else:
        csv.field_size_limit(LONGEST_FIELD)
        with io.TextIOWrapper(stream, encoding="utf-8-sig", newline="") as text:
            rows = sum(1 for record in csv.reader(text, delimiter=delimiter) if record)
    return max(0, rows - (not source.column_names))


def _filled(lines: Iterable[bytes]) -> int:
    return sum(1 for line in lines if line.strip())


def _in_json(text: bytes, path: Path, source: SourceSection) -> int:
    """A list of rows, lists by split, or one row a line."""
    if not text.strip():
        return 0
    try:
        rows = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg.startswith("Extra data"):
            return _filled(text.splitlines())
        raise
    if isinstance(rows, dict):
        names = [name for name, value in rows.items() if isinstance(value, list)]
        rows = rows[list_of(source.split, names, place=path.name)]
    if not isinstance(rows, list):
        raise _Unknown(f"{path.name} is not a list")
    return len(rows)


def _in_parquet(path: Path) -> int:
    """What the footer says; no row is read."""
    import pyarrow.parquet as parquet  # type: ignore[import-untyped]  # it carries no types

    return int(parquet.read_metadata(path).num_rows)


def _in_arrow(path: Path) -> int:
    """What the heads of the record batches say; their bodies are mapped, and not looked at."""
    import pyarrow as arrow
    import pyarrow.ipc as ipc  # type: ignore[import-untyped]

    with arrow.memory_map(str(path)) as mapped:
        if mapped.read(len(_ARROW_FILE)) == _ARROW_FILE:
            opened = ipc.open_file(mapped)
            return sum(opened.get_batch(n).num_rows for n in range(opened.num_record_batches))
        mapped.seek(0)
        return sum(batch.num_rows for batch in ipc.open_stream(mapped))


_ARROW_FILE = b"ARROW1"
_FOOTERS = {"parquet": _in_parquet, "arrow": _in_arrow}
