"""Bytes of a local file, plain or gzipped, and text that is checked to be UTF-8, piece by piece."""

from __future__ import annotations

import codecs
import gzip
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, cast

from qtune.artefacts import LFS_MARK
from qtune.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

    from qtune.data.faults import Faults

_PIECE = 1 << 18
_MARK = codecs.BOM_UTF8
# UTF-32 first: its mark begins like that of UTF-16.
_OTHER_TEXT = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_OTHER_DATA = {
    b"PK\x03\x04": ("a zip archive (or xlsx)", "unpack it, or write its table as csv"),
    b"7z\xbc\xaf\x27\x1c": ("a 7z archive", "unpack it"),
    b"\x1f\x8b": ("gzip data", "let its name end in .gz"),
    b"\x28\xb5\x2f\xfd": ("zstd data", "unpack it"),
    b"PAR1": ("a parquet file", "let its name end in .parquet"),
    b"ARROW1": ("an arrow file", "let its name end in .arrow"),
}


@contextmanager
def open_bytes(path: Path, label: str) -> Iterator[BinaryIO]:
    """The bytes of a file, unpacked when its name ends in .gz; `DataError` when unreadable."""
    try:
        with path.open("rb") as plain:
            if path.suffix.lower() != ".gz":
                yield plain
                return
            refuse_pointer(plain.read(len(LFS_MARK)), label)
            plain.seek(0)
            with gzip.open(plain) as unpacked:
                yield cast("BinaryIO", unpacked)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"not a whole gzip file: {error}", place=label) from None
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", place=label) from None


def text_lines(path: Path, label: str, faults: Faults) -> Generator[str, None, None]:
    """The lines of a text file, without their ends; a faulty line is recorded and comes empty."""
    with open_bytes(path, label) as stream:
        for number, raw in enumerate(stream, 1):
            if number == 1:
                raw = _begun(raw, label)
            if b"\0" in raw:
                yield _faulty(raw, f"{label}:{number}", faults)
                continue
            try:
                text = raw.decode("utf-8")
            except UnicodeDecodeError:
                yield _faulty(raw, f"{label}:{number}", faults)
                continue
            yield text.rstrip("\r\n")


def text_pieces(path: Path, label: str) -> Generator[str, None, None]:
    """All of a text file in pieces; `DataError` with line and byte where it is not UTF-8."""
    line, column, rest = 1, 0, b""
    with open_bytes(path, label) as stream:
        raw = _begun(stream.read(_PIECE), label)
        while raw or rest:
            block = rest + raw
            try:
                if b"\0" in block:
                    raise ValueError
                text, taken = codecs.utf_8_decode(block, "strict", not raw)
            except ValueError:
                raise _fault_in(block, label, line, column) from None
            yield text
            lines = block.count(b"\n", 0, taken)
            column = taken - block.rfind(b"\n", 0, taken) - 1 if lines else column + taken
            line, rest = line + lines, block[taken:]
            raw = stream.read(_PIECE) if raw else b""


def refuse_pointer(raw: bytes, label: str) -> None:
    """`DataError` when the file is a git-lfs pointer instead of the data."""
    if raw.startswith(LFS_MARK):
        raise DataError("a git-lfs pointer, not the data", place=label, hint="run git lfs pull")


def _begun(raw: bytes, label: str) -> bytes:
    """The first bytes of a text without its mark; `DataError` when they are of no UTF-8 text."""
    refuse_pointer(raw, label)
    for mark, name in _OTHER_TEXT.items():
        if raw.startswith(mark):
            hint = f"convert it: iconv -f {name} -t utf-8 FILE"
            raise DataError(f"{name.upper()} text; UTF-8 is needed", place=f"{label}:1", hint=hint)
    for mark, (what, hint) in _OTHER_DATA.items():
        if raw.startswith(mark):
            raise DataError(f"{what}, not text", place=label, hint=hint)
    return raw.removeprefix(_MARK)


def _text_fault(raw: bytes) -> tuple[int, str, str]:
    """Offset, message and hint of the first byte that is not UTF-8 text."""
    nul = raw.find(b"\0")
    try:
        (raw if nul < 0 else raw[:nul]).decode("utf-8")
    except UnicodeDecodeError as error:
        hint = "convert it: iconv -f latin1 -t utf-8 FILE"
        return error.start, f"not UTF-8: byte 0x{raw[error.start]:02x}", hint
    return nul, "NUL byte", "the file is damaged or not text"


def _fault_in(block: bytes, label: str, line: int, column: int) -> DataError:
    """The fault of a block that begins at a line and a byte of it."""
    offset, message, hint = _text_fault(block)
    lines = block.count(b"\n", 0, offset)
    byte = offset - block.rfind(b"\n", 0, offset) if lines else column + offset + 1
    message = f"{message} at byte {byte} of the line"
    return DataError(message, place=f"{label}:{line + lines}", hint=hint)


def _faulty(raw: bytes, place: str, faults: Faults) -> str:
    offset, message, hint = _text_fault(raw)
    faults.add(f"{message} at byte {offset + 1} of the line", place=place, hint=hint)
    return ""
