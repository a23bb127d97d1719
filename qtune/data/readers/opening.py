"""Bytes of a local file, plain or gzipped, and lines that are checked to be UTF-8 text."""

from __future__ import annotations

import gzip
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, cast

from qtune.artefacts import LFS_MARK
from qtune.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from qtune.data.faults import Faults

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@contextmanager
def open_bytes(path: Path, label: str) -> Iterator[BinaryIO]:
    """The bytes of a file, unpacked when its name ends in .gz; `DataError` when unreadable."""
    packed = path.suffix.lower() == ".gz"
    try:
        with gzip.open(path) if packed else path.open("rb") as stream:
            yield cast("BinaryIO", stream)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"not a whole gzip file: {error}", place=label) from None
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", place=label) from None


def text_fault(raw: bytes) -> tuple[int, str, str] | None:
    """Offset, message and hint of the first byte that is not UTF-8 text; None when all is well."""
    nul = raw.find(b"\0")
    if nul >= 0:
        return nul, "NUL byte", "the file is damaged or not text"
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as error:
        hint = "convert it: iconv -f latin1 -t utf-8 FILE"
        return error.start, f"not UTF-8: byte 0x{raw[error.start]:02x}", hint
    return None


def text_lines(path: Path, label: str, faults: Faults) -> Iterator[str]:
    """The lines of a text file, without their ends; a faulty line is recorded and comes empty."""
    with open_bytes(path, label) as stream:
        for number, raw in enumerate(stream, 1):
            if number == 1:
                raw = raw.removeprefix(BYTE_ORDER_MARK)
                refuse_pointer(raw, label)
            if b"\0" in raw:
                yield _faulty(raw, f"{label}:{number}", faults)
                continue
            try:
                text = raw.decode("utf-8")
            except UnicodeDecodeError:
                yield _faulty(raw, f"{label}:{number}", faults)
                continue
            yield text.rstrip("\r\n")


def whole_text(path: Path, label: str) -> str:
    """All of a text file; `DataError` with line and byte when it is not UTF-8."""
    with open_bytes(path, label) as stream:
        raw = stream.read().removeprefix(BYTE_ORDER_MARK)
    refuse_pointer(raw, label)
    fault = text_fault(raw)
    if fault:
        offset, message, hint = fault
        line = raw.count(b"\n", 0, offset) + 1
        column = offset - raw.rfind(b"\n", 0, offset)
        message = f"{message} at byte {column} of the line"
        raise DataError(message, place=f"{label}:{line}", hint=hint)
    return raw.decode("utf-8")


def refuse_pointer(raw: bytes, label: str) -> None:
    """`DataError` when the file is a git-lfs pointer instead of the data."""
    if raw.startswith(LFS_MARK):
        raise DataError("a git-lfs pointer, not the data", place=label, hint="run git lfs pull")


def _faulty(raw: bytes, place: str, faults: Faults) -> str:
    fault = text_fault(raw)
    assert fault is not None
    offset, message, hint = fault
    faults.add(f"{message} at byte {offset + 1} of the line", place=place, hint=hint)
    return ""
