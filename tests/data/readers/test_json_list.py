"""JSON lists are read element by element and know their lines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qtune.errors import DataError
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
