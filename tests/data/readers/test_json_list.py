"""JSON lists are read element by element and know their lines."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from qtune.errors import DataError, UsageError
from tests.data.building import messages_of, read_rows


def read_text(folder: Path, text: str) -> tuple[list[tuple[int, dict[str, object]]], list[str]]:
    path = folder / "f.json"
    path.write_text(text)
    rows, faults = read_rows(path)
    try:
        faults.raise_if_any()
    except DataError as error:
        return [(row.number, row.values) for row in rows], messages_of(error)
    return [(row.number, row.values) for row in rows], []


def test_equal_to_the_whole_parse_with_the_line_of_each_element(tmp_path: Path) -> None:
    values = [{"a": "x\ny"}, {"a": "[}"}, {"a": ["1", {"b": None}]}]
    text = json.dumps(values, indent=2)
    rows, faults = read_text(tmp_path, text)
    assert [row for _, row in rows] == values
    starts = [n for n, line in enumerate(text.splitlines(), 1) if line == "  {"]
    assert [number for number, _ in rows] == starts
    assert faults == []


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ('{"version": "1", "data": [{"a": 1}, {"a": 2}]}', [{"a": 1}, {"a": 2}]),
        ('["one", "two"]', [{"text": "one"}, {"text": "two"}]),
        ('{"a": 1}\n{"a": 2}\n', [{"a": 1}, {"a": 2}]),
        (" [ ] ", []),
        ("", []),
    ],
    ids=["object of one list", "texts", "json lines", "empty list", "empty file"],
)
def test_shapes(tmp_path: Path, text: str, values: list[dict[str, object]]) -> None:
    rows, faults = read_text(tmp_path, text)
    assert [row for _, row in rows] == values
    assert faults == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[\n{"a": 1},\n{"a" 2}\n]', "f.json:3: not valid JSON: Expecting ':'"),
        ('[\n{"a": 1},\n{"a": 2}\n', "f.json:4: not valid JSON: ',' or ']' expected, the file"),
        ('[\n{"a": 1},\n{"a": "2', "f.json:3: not valid JSON: the file is cut"),
        ('[\n{"a": 1},\n3\n]', "f.json:3: an object is needed, found a number"),
        ('[{"a": 1},\n{"a": 1, "a": 2}]', "f.json:2: the key 'a' stands twice in one object"),
        ('[{"a": 1}]\n[]', "f.json:2: not valid JSON: more text after the end"),
        ('{"a": 1}', "f.json:1: a list of objects is needed, found one object"),
        ("3", "f.json:1: a list of objects is needed"),
        ("nope", "f.json:1: a list of objects is needed"),
    ],
)
def test_faults_name_their_line(tmp_path: Path, text: str, message: str) -> None:
    _, faults = read_text(tmp_path, text)
    assert len(faults) == 1
    assert faults[0].startswith(message)


def test_rows_go_on_behind_one_with_a_key_twice(tmp_path: Path) -> None:
    text = '{"x": {"y": 1, "y": 2}, "data": [{"a": 1},\n{"a": 1, "a": 2},\n{"a": 3}]}'
    rows, faults = read_text(tmp_path, text)
    assert [number for number, _ in rows] == [1, 3]
    assert len(faults) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'[\n{"a": "caf\xe9"}]', "f.json:2: not UTF-8: byte 0xe9 at byte 11 of the line"),
        (b'[\n{"a": "\x00"}]', "f.json:2: NUL byte at byte 8 of the line"),
    ],
)
def test_bytes_that_are_no_text(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "f.json"
    path.write_bytes(content)
    _, faults = read_rows(path)
    with pytest.raises(DataError) as caught:
        faults.raise_if_any()
    assert str(caught.value).startswith(message)


SPLITS = {"version": 1, "train": [["hi", "greet"]] * 3, "test": [["bye", "part"]] * 2, "oos": []}


@pytest.mark.parametrize(
    ("split", "count"), [("train", 3), ("test", 2), ("test[:50%]", 1), ("oos", 0)]
)
def test_an_object_of_splits_gives_the_one_asked_for(
    tmp_path: Path, split: str, count: int
) -> None:
    path = tmp_path / "f.json"
    path.write_text(json.dumps(SPLITS, indent=1))
    rows, faults = read_rows(path, split=split, column_names=("text", "label"))
    assert len(rows) == count
    assert all(set(row.values) == {"text", "label"} for row in rows)
    assert faults.count == 0


def test_an_unknown_split_lists_those_there_are(tmp_path: Path) -> None:
    path = tmp_path / "f.json"
    path.write_text(json.dumps(SPLITS))
    with pytest.raises(UsageError, match=r"f\.json: no split 'dev'; there are: train, test, oos"):
        read_rows(path, split="dev", column_names=("a", "b"))


def test_the_only_list_of_an_object_may_have_any_name_but_that_of_another_split(
    tmp_path: Path,
) -> None:
    path = tmp_path / "f.json"
    path.write_text('{"test": [{"a": 1}]}')
    with pytest.raises(UsageError, match="no split 'train'; there are: test"):
        read_rows(path)
    assert len(read_rows(path, split="test")[0]) == 1


@pytest.mark.parametrize("text", ["[]", '{"a": 1}\n{"a": 2}\n'], ids=["list", "lines"])
def test_a_split_of_a_file_without_splits_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "f.json"
    path.write_text(text)
    _, faults = read_rows(path, split="test")
    with pytest.raises(DataError, match=r"^f\.json: split 'test' is asked for.*without splits"):
        faults.raise_if_any()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[\n["a", "b"],\n["a"]]', "f.json:3: 1 items where 2 (x, y) are needed"),
        ('[\n{"x": 1}]', "f.json:2: a list is needed, as column_names are given, found an object"),
    ],
)
def test_items_that_do_not_fit_their_names(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "f.json"
    path.write_text(text)
    _, faults = read_rows(path, column_names=("x", "y"))
    assert [str(fault) for fault in faults.first] == [message]


def test_lists_want_names(tmp_path: Path) -> None:
    (tmp_path / "f.jsonl").write_text('["a", 1]\n')
    _, faults = read_rows(tmp_path / "f.jsonl")
    assert "an object is needed, found a list (name its items with column_names)" in str(
        faults.first[0]
    )
    rows, _ = read_rows(tmp_path / "f.jsonl", column_names=("text", "label"))
    assert [row.values for row in rows] == [{"text": "a", "label": 1}]


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_values_that_lie_across_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(sys.modules["qtune.data.readers.opening"], "_PIECE", size)
    values = [{"a": 12345, "b": [True, None, -1.5e-7]}, {"\U0001f600": 'é\\" \U0001f600\n'}, {}]
    for indent in (None, 1):
        rows, faults = read_text(tmp_path, json.dumps(values, indent=indent))
        assert [row for _, row in rows] == values
        assert faults == []
    text = json.dumps(values, indent=1, ensure_ascii=False)
    assert [row for _, row in read_text(tmp_path, text)[0]] == values
    text = text.replace("12345", "12x45")
    with pytest.raises(json.JSONDecodeError) as theirs:
        json.loads(text)
    [fault] = read_text(tmp_path, text)[1]
    assert fault.startswith(f"f.json:{theirs.value.lineno}: not valid JSON: {theirs.value.msg}")
    assert fault.endswith(f"at column {theirs.value.colno}")
    assert theirs.value.lineno > 1
