"""Every fault of a text file names its file and line; what is harmless is accepted."""

from __future__ import annotations

import gzip
import sys
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
    "a key twice": (GOOD + b'{"a": "1", "a": "2"}\n', "f.jsonl:2: the key 'a' stands twice"),
    "a nested key twice": (
        b'{"a": [{"b": 1, "c": 2, "b": 3}]}\n' + GOOD,
        "f.jsonl:1: the key 'b' stands twice in one object (remove one)",
    ),
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
    path.write_bytes(GOOD + b'{"a": 1, "a": 2} oops\n' + b"\n" + GOOD)
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


@pytest.mark.parametrize("name", ["f.jsonl.gz", "f.json.gz", "f.csv.gz", "f.txt.gz"])
@pytest.mark.parametrize("content", [b"plain", gzip.compress(GOOD * 3)[:-9]], ids=["plain", "cut"])
def test_a_broken_gzip_file_is_one_line(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert all_faults(tmp_path / name).startswith(f"{name}: not a whole gzip file")


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


@pytest.mark.parametrize("name", ["f.jsonl", "f.json", "f.csv", "f.txt", "f.jsonl.gz"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32", "utf-32-be"])
def test_other_encodings_say_how_to_convert_them(tmp_path: Path, name: str, encoding: str) -> None:
    mark = "" if encoding in ("utf-16", "utf-32") else "\ufeff"
    raw = f'{mark}{{"a": "1"}}\n'.encode(encoding)
    (tmp_path / name).write_bytes(gzip.compress(raw) if name.endswith("gz") else raw)
    message = all_faults(tmp_path / name)
    assert message.startswith(f"{name}:1: {encoding[:6].upper()} text; UTF-8 is needed")
    assert f"iconv -f {encoding[:6]} -t utf-8" in message


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"PK\x03\x04abc", "a zip archive (or xlsx), not text (unpack it, or write"),
        (gzip.compress(GOOD), "gzip data, not text (let its name end in .gz)"),
        (b"PAR1\x15\x00", "a parquet file, not text (let its name end in .parquet)"),
        (b"ARROW1\x00\x00", "an arrow file, not text"),
    ],
    ids=["zip", "gzip", "parquet", "arrow"],
)
@pytest.mark.parametrize("name", ["f.jsonl", "f.json", "f.csv", "f.txt"])
def test_other_data_under_the_name_of_text_is_named(
    tmp_path: Path, name: str, raw: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(raw)
    assert all_faults(tmp_path / name).startswith(f"{name}: {message}")


@pytest.mark.parametrize("size", [1, 5, 64])
@pytest.mark.parametrize("bad", [b"caf\xe9", b"\x00", "é".encode()[:1]])
def test_a_bad_byte_has_its_line_and_place_however_the_text_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, bad: bytes
) -> None:
    monkeypatch.setattr(sys.modules["qtune.data.readers.opening"], "_PIECE", size)
    (tmp_path / "f.txt").write_bytes("ä\nöü\nß ".encode() + bad)
    line = "ß ".encode() + bad
    byte = 1 + next(n for n, value in enumerate(line) if value in (0, 0xE9) or line[n:] == b"\xc3")
    assert f"f.txt:3: {'NUL' if bad == bytes(1) else 'not UTF-8'}" in all_faults(tmp_path / "f.txt")
    assert f"at byte {byte} of the line" in all_faults(tmp_path / "f.txt")


def all_faults(path: Path) -> str:
    """The first thing that is wrong, recorded or raised."""
    with pytest.raises(DataError) as caught:
        read_rows(path)[1].raise_if_any()
    return messages_of(caught.value)[0]
