"""Every fault of a text file names its file and line; what is harmless is accepted."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from qtune.errors import DataError
from tests.data.building import messages_of, read_rows

GOOD = b'{"a": "1"}\n'
FAULTS = {
    "malformed": (GOOD * 2 + b'{"a" "1"}\n' + GOOD, "f.jsonl:3: not valid JSON: Expecting ':'"),
    "cut last line": (GOOD + b'{"a": "1', "f.jsonl:2: not valid JSON: the line is cut"),
    "nul": (GOOD + b'{"a": "\x00"}\n', "f.jsonl:2: NUL byte at byte 8 of the line"),
    "latin-1": (GOOD * 3 + b'{"a": "caf\xe9"}\n', "f.jsonl:4: not UTF-8: byte 0xe9 at byte 11"),
    "list line": (GOOD + b'["a"]\n', "f.jsonl:2: an object is needed, found a list"),
    "text line": (b'"a"\n', "f.jsonl:1: an object is needed, found text"),
    "number line": (b"\n\n3\n", "f.jsonl:3: an object is needed, found a number"),
    "null line": (b"null\n", "f.jsonl:1: an object is needed, found null"),
    "too deep": (b'{"a":' * 100_000, "f.jsonl:1: not valid JSON: nested too deeply"),
    "a json list": (b"[\n" + GOOD + b"]\n", "f.jsonl:1: not valid JSON: the line is cut"),
}


@pytest.mark.parametrize(("content", "message"), FAULTS.values(), ids=FAULTS)
def test_a_faulty_line_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "f.jsonl"
    path.write_bytes(content)
    _, faults = read_rows(path)
    with pytest.raises(DataError) as caught:
        faults.raise_if_any()
    assert messages_of(caught.value)[0].startswith(message)


def test_good_rows_around_a_fault_keep_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    path.write_bytes(GOOD + b"oops\n" + b"\n" + GOOD)
    rows, faults = read_rows(path)
    assert [row.place for row in rows] == ["f.jsonl:1", "f.jsonl:4"]
    assert faults.count == 1


def test_byte_order_mark_crlf_blank_lines_and_no_last_newline_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": "1"}\r\n\r\n  \r\n{"a": "2"}')
    rows, faults = read_rows(path)
    assert [(row.number, row.values["a"]) for row in rows] == [(1, "1"), (4, "2")]
    assert faults.count == 0


def test_a_line_separator_inside_text_is_no_line_end(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    path.write_text('{"a": "one\u2028two"}\n{"a": "three"}\n', encoding="utf-8")
    rows, _ = read_rows(path)
    assert [row.number for row in rows] == [1, 2]


def test_a_gzipped_file_reads_the_same(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl.gz"
    path.write_bytes(gzip.compress(GOOD * 3))
    rows, faults = read_rows(path)
    assert [row.place for row in rows] == [f"f.jsonl.gz:{n}" for n in (1, 2, 3)]
    assert faults.count == 0


@pytest.mark.parametrize("content", [b"plain", gzip.compress(GOOD * 3)[:-9]], ids=["plain", "cut"])
def test_a_broken_gzip_file_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "f.jsonl.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"^f\.jsonl\.gz: not a whole gzip file"):
        read_rows(path)


def test_a_git_lfs_pointer_is_not_data(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(DataError, match="git-lfs pointer"):
        read_rows(path)


def test_max_rows_stops_reading(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    path.write_bytes(GOOD * 2 + b"oops\n")
    rows, faults = read_rows(path, max_rows=2)
    assert len(rows) == 2
    assert faults.count == 0
