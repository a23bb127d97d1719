from __future__ import annotations

import gzip
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pyarrow
import pyarrow.parquet
import pytest

from qtune.data.faults import Faults
from qtune.data.source import read
from qtune.plan import count_rows, rows
from qtune.recipe.inputs import DataSection, SourceSection

if TYPE_CHECKING:
    from pathlib import Path


def count(*sources: dict[str, Any], **data: Any) -> rows.RowCount:
    return count_rows(DataSection.model_validate({"train": list(sources), **data}))


def source(path: Path, text: str, **settings: Any) -> dict[str, Any]:
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
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
        ("empty.json", "", {}, 0),
        ("a.csv", "1;;2\n3;;4\n", {"delimiter": ";;"}, 1),
        ("a.csv", "1\t2\n3\t4\n", {"delimiter": "\\t"}, 1),
        ("a.csv", f'a,b\n1,"{"x" * 200_000}"\n', {}, 1),
        ("a.txt", "x || y\nz || w\n", {"delimiter": "||"}, 1),
        ("a.txt", "x || y\n\nz || w\n", {}, 2),
        ("a.txt", "x\ny\n", {"column_names": ["text"]}, 2),
        ("a.json", '{"v": 1, "data": [{"a": 1}, {"a": 2}]}', {}, 2),
        ("a.json", '{"train": [{"a": 1}], "test": [{}, {}]}', {"split": "test"}, 2),
        ("a.json", '["one", "two"]', {}, 2),
        ("a.json", '[["a"], ["b"]]', {"column_names": ["x"]}, 2),
        ("a.jsonl.gz", "{}\n\n{}\n", {}, 2),
        ("a.csv.gz", "a,b\n1,2\n", {}, 1),
        ("a.json.gz", "[{}, {}]", {}, 2),
        ("a.ndjson", "{}\n" * 3, {}, 3),
        ("a.jsonl", "{}\n" * 57, {"split": "train[:5%]"}, 3),
        ("a.jsonl", "{}\n" * 57, {"split": "train[-10%:]", "max_rows": 4}, 4),
        ("a.jsonl", "{}\n" * 57, {"split": "train[50:100]"}, 7),
    ],
)
def test_rows_are_counted(
    tmp_path: Path, name: str, text: str, settings: dict[str, Any], expected: int
) -> None:
    asked = source(tmp_path / name, text, **settings)
    assert count(asked).rows == expected
    assert sum(1 for _ in read(SourceSection.model_validate(asked), Faults())) == expected


@pytest.mark.parametrize(
    ("name", "text", "settings", "reason"),
    [
        ("a.txt", "one long text", {}, "plain text"),
        ("a.jsonl", "{}\n", {"format": "text"}, "plain text"),
        ("a.jsonl", "{}\n", {"format": "self-instruct"}, "several examples a row"),
        ("a.parquet", "PAR1", {}, "a.parquet is no whole parquet file"),
        ("a.arrow", "", {}, "a.arrow is no whole arrow file"),
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


@pytest.mark.parametrize("name", ["a.parquet", "file.arrow", "stream.arrow"])
def test_footers_tell_the_rows_of_binary_files(tmp_path: Path, name: str) -> None:
    table = pyarrow.Table.from_pylist([{"n": n} for n in range(2500)])
    path = tmp_path / name
    if name == "a.parquet":
        pyarrow.parquet.write_table(table, path, row_group_size=1000)
    else:
        make = pyarrow.ipc.new_file if name == "file.arrow" else pyarrow.ipc.new_stream
        with make(str(path), table.schema) as writer:
            writer.write_table(table, max_chunksize=900)
    asked = {"path": str(path), "split": "train[:50%]"}
    assert count(asked).rows == 1250
    assert sum(1 for _ in read(SourceSection.model_validate(asked), Faults())) == 1250


def test_files_of_a_folder_and_of_a_glob_add_up(tmp_path: Path) -> None:
    source(tmp_path / "a.jsonl", "{}\n" * 3)
    source(tmp_path / "b.jsonl", "{}\n" * 4)
    assert count({"path": str(tmp_path)}).rows == 7
    assert count({"path": str(tmp_path / "[b]*")}).rows == 4
    source(tmp_path / "b.csv", "a\n1\n")
    found = count({"path": str(tmp_path)})
    assert found.rows is None
    assert "does not open (data files of several kinds" in found.reason


def test_text_is_counted_without_pyarrow(tmp_path: Path) -> None:
    path = source(tmp_path / "a.jsonl", "{}\n")["path"]
    code = (
        "import sys; from qtune.plan import count_rows; "
        "from qtune.recipe.sections import DataSection; "
        f"print(count_rows(DataSection.model_validate({{'train': [{{'path': {path!r}}}]}})).rows, "
        "[m for m in ('pyarrow', 'numpy', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1 []"


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
