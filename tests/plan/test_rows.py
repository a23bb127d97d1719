from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from qtune.plan import count_rows, rows
from qtune.recipe.sections import DataSection

if TYPE_CHECKING:
    from pathlib import Path


def count(*sources: dict[str, Any], **data: Any) -> rows.RowCount:
    return count_rows(DataSection.model_validate({"train": list(sources), **data}))


def source(path: Path, text: str, **settings: Any) -> dict[str, Any]:
    path.write_bytes(text.encode())
    return {"path": str(path), **settings}


@pytest.mark.parametrize(
    ("name", "text", "settings", "expected"),
    [
        ("a.jsonl", '{"a": 1}\n{"a": 2}\n', {}, 2),
        ("a.jsonl", '{"a": 1}\n\n  \n{"a": 2}', {}, 2),
        ("a.json", json.dumps([{"a": 1}] * 5), {}, 5),
        ("a.json", '{"a": 1}\n{"a": 2}\n{"a": 3}\n', {}, 3),
        ("a.csv", 'a,b\n1,"two\nlines"\n3,4\n', {}, 2),
        ("a.csv", "\ufeffa,b\n1,2\n\n", {}, 1),
        ("a.csv", "1,2\n3,4\n", {"column_names": ["x", "y"]}, 2),
        ("a.tsv", "a\tb\n1\t2\n", {}, 1),
        ("a.txt", "x || y\nz || w\n", {"delimiter": "||", "column_names": ["x", "y"]}, 2),
        ("a.jsonl", "{}\n" * 9, {"max_rows": 4}, 4),
        ("a.jsonl", "{}\n" * 3, {"max_rows": 4}, 3),
        ("empty.csv", "", {}, 0),
    ],
)
def test_rows_are_counted(
    tmp_path: Path, name: str, text: str, settings: dict[str, Any], expected: int
) -> None:
    assert count(source(tmp_path / name, text, **settings)).rows == expected


@pytest.mark.parametrize(
    ("name", "text", "settings", "reason"),
    [
        ("a.txt", "one long text", {}, "plain text"),
        ("a.jsonl", "{}\n", {"format": "text"}, "plain text"),
        ("a.parquet", "PAR1", {}, "ArrowInvalid"),
        ("a.json", '{"a": [], "b": []}', {}, "UsageError"),
        ("a.json", "3", {}, "not a list"),
        ("a.json", '[{"a": ', {}, "JSONDecodeError"),
    ],
)
def test_what_cannot_be_counted_says_why(
    tmp_path: Path, name: str, text: str, settings: dict[str, Any], reason: str
) -> None:
    found = count(source(tmp_path / name, text, **settings))
    assert found.rows is None
    assert reason in found.reason
    assert "unknown until the data is read" in found.reason


def test_a_hub_id_is_not_counted() -> None:
    assert count({"path": "owner/name"}).rows is None


def test_large_files_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "MAX_LINES_BYTES", 10)
    assert count(source(tmp_path / "a.jsonl", "{}\n" * 3)).rows == 3
    assert "large" in count(source(tmp_path / "b.jsonl", "{}\n" * 4)).reason


def test_sources_add_up_and_one_unknown_makes_all_unknown(tmp_path: Path) -> None:
    first = source(tmp_path / "a.jsonl", "{}\n" * 3)
    second = source(tmp_path / "b.jsonl", "{}\n" * 4)
    assert count(first, second).rows == 7
    assert count(first, {"path": "owner/name"}).rows is None


@pytest.mark.parametrize(
    ("val_size", "left"), [(0.1, 90), (0.125, 87), (0.001, 99), (25.0, 75), (0.0, 100), (500.0, 0)]
)
def test_held_out_rows_are_not_trained_on(tmp_path: Path, val_size: float, left: int) -> None:
    rows_of = source(tmp_path / "a.jsonl", "{}\n" * 100)
    assert count(rows_of, val_size=val_size).rows == left
    assert count(rows_of, val_size=val_size, eval=[rows_of]).rows == 100
