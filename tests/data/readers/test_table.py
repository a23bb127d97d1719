"""Tables in text, against the csv that Python writes, and their faults."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest

from qtune.errors import DataError, UsageError
from qtune.recipe.lines import LONGEST_FIELD
from tests.data.building import messages_of, read_rows


def fault_of(path: Path, **keys: object) -> str:
    _, faults = read_rows(path, **keys)
    with pytest.raises(DataError) as caught:
        faults.raise_if_any()
    assert len(messages_of(caught.value)) == 1
    return messages_of(caught.value)[0]


@pytest.mark.parametrize(("suffix", "delimiter"), [("csv", ","), ("tsv", "\t")])
def test_quoted_fields_come_back_with_the_line_they_begin_on(
    tmp_path: Path, suffix: str, delimiter: str
) -> None:
    records = [["q", "a"], ['say "hi"', "one\ntwo\nthree"], [f"x{delimiter}y", "z"]]
    path = tmp_path / f"f.{suffix}"
    with path.open("w", newline="") as stream:
        csv.writer(stream, delimiter=delimiter).writerows(records)
    rows, faults = read_rows(path)
    assert [list(row.values.values()) for row in rows] == records[1:]
    assert [row.number for row in rows] == [2, 5]
    assert faults.count == 0


def test_column_names_stand_for_a_header(tmp_path: Path) -> None:
    path = tmp_path / "f.csv"
    path.write_text("1;2\n3;4\n")
    rows, _ = read_rows(path, column_names=("a", "b"), delimiter=";")
    assert [row.values for row in rows] == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]


def test_a_long_delimiter_cuts_only_as_often_as_there_are_columns(tmp_path: Path) -> None:
    path = tmp_path / "f.txt"
    path.write_text('one||"two||three\n\nfour||five\n')
    rows, faults = read_rows(path, column_names=("a", "b"), delimiter="||")
    assert [row.values for row in rows] == [
        {"a": "one", "b": '"two||three'},
        {"a": "four", "b": "five"},
    ]
    assert [row.number for row in rows] == [1, 3]
    assert faults.count == 0


def test_one_column_name_makes_each_line_of_a_text_a_row(tmp_path: Path) -> None:
    path = tmp_path / "f.txt"
    path.write_text("one\n\ntwo\n")
    rows, _ = read_rows(path, column_names=("text",))
    assert [row.values for row in rows] == [{"text": "one"}, {"text": "two"}]


def test_a_text_file_alone_is_one_document(tmp_path: Path) -> None:
    path = tmp_path / "f.txt"
    path.write_bytes(b"one\r\n\r\ntwo\r\n")
    rows, _ = read_rows(path)
    assert [row.values for row in rows] == [{"text": "one\n\ntwo\n"}]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n3\n", "f.csv:3: 1 columns where 2 (a, b) are needed"),
        ("a,b\n1,2,3\n", "f.csv:2: 3 columns where 2 (a, b) are needed"),
        ('a,b\n1,"2\n3,4\n', "f.csv:2: not valid csv: a quote is never closed"),
        ('a,b\n1,2\n"3"x,4\n', "f.csv:3: not valid csv: ',' expected after '\"'"),
    ],
    ids=["short", "long", "open quote", "text after a quote"],
)
def test_ragged_and_broken_rows(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "f.csv"
    path.write_text(text)
    assert fault_of(path).startswith(message)


def test_a_text_table_without_its_delimiter_is_ragged(tmp_path: Path) -> None:
    path = tmp_path / "f.txt"
    path.write_text("one||two\nthree\n")
    message = fault_of(path, column_names=("a", "b"), delimiter="||")
    assert message.startswith("f.txt:2: 1 columns where 2 (a, b)")


def test_a_bad_byte_in_a_table(tmp_path: Path) -> None:
    path = tmp_path / "f.csv"
    path.write_bytes(b"a,b\n1,2\ncaf\xe9,3\n")
    assert fault_of(path).startswith("f.csv:3: not UTF-8: byte 0xe9 at byte 4")


def test_doubled_header_columns(tmp_path: Path) -> None:
    path = tmp_path / "f.csv"
    path.write_text("a,b,a\n1,2,3\n")
    with pytest.raises(DataError, match=r"^f\.csv:1: column 'a' stands twice in the header"):
        read_rows(path)


@pytest.mark.parametrize("key", ["delimiter", "config", "revision"])
def test_a_key_without_effect_is_refused(tmp_path: Path, key: str) -> None:
    path = tmp_path / "f.jsonl"
    path.write_text("{}\n")
    with pytest.raises(UsageError, match=f"{key} has no effect on a .jsonl file"):
        read_rows(path, **{key: "x"})


def test_an_open_quote_does_not_swallow_a_file_into_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["qtune.data.readers.table"], "LONGEST_FIELD", 1000)
    path = tmp_path / "f.csv"
    path.write_text('a,b\n1,2\n3,"4\n' + "5,6\n" * 1000)
    rows, faults = read_rows(path)
    csv.field_size_limit(LONGEST_FIELD)
    assert str(faults.first[0]).startswith("f.csv:3: not valid csv: a quote is never closed")
    assert faults.count == 1
    assert 700 < len(rows) < 1000
    assert rows[-1].number == 1003


def test_a_quote_that_opens_and_another_that_closes_are_placed_at_their_record(
    tmp_path: Path,
) -> None:
    path = tmp_path / "f.csv"
    path.write_text('a,b\n1,"2\n3,4\n5,"6"\n7,8\n')
    rows, faults = read_rows(path)
    assert [fault.place for fault in faults.first] == ["f.csv:2"]
    assert [row.number for row in rows] == [5]


def test_a_nul_byte_in_a_table(tmp_path: Path) -> None:
    path = tmp_path / "f.csv"
    path.write_bytes(b"a,b\n1,\x00\n")
    assert fault_of(path).startswith("f.csv:2: NUL byte at byte 3 of the line")
