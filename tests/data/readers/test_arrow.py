"""Arrow and parquet files come back as Python values; cut ones are one line each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from qtune.errors import DataError
from tests.data.building import read_rows

VALUES: list[dict[str, Any]] = [
    {"n": n, "turns": [{"role": "user", "content": f"t{n}"}], "none": None, "x": n / 2}
    for n in range(2500)
]
TABLE = pyarrow.Table.from_pylist(VALUES)


def write(path: Path, how: str) -> Path:
    if how == "parquet":
        pyarrow.parquet.write_table(TABLE, path, row_group_size=700)
        return path
    make = pyarrow.ipc.new_file if how == "file" else pyarrow.ipc.new_stream
    with make(str(path), TABLE.schema) as writer:
        writer.write_table(TABLE, max_chunksize=1300)
    return path


@pytest.mark.parametrize("how", ["file", "stream", "parquet"])
def test_rows_come_back_with_nested_values_and_their_numbers(tmp_path: Path, how: str) -> None:
    name = "f.parquet" if how == "parquet" else "f.arrow"
    rows, faults = read_rows(write(tmp_path / name, how))
    assert [row.values for row in rows] == VALUES
    assert [row.number for row in rows] == list(range(1, 2501))
    assert rows[-1].place == f"{name}:2500"
    assert faults.count == 0


@pytest.mark.parametrize("how", ["file", "stream", "parquet"])
def test_a_cut_file_is_one_line_wherever_it_is_cut(tmp_path: Path, how: str) -> None:
    path = tmp_path / ("f.parquet" if how == "parquet" else "f.arrow")
    whole = write(path, how).read_bytes()
    for length in (0, 2, 5, 12, 300, len(whole) // 2, len(whole) - 9, len(whole) - 8):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError) as caught:
            read_rows(path)
        assert str(caught.value).startswith(f"{path.name}: "), length
        assert "\n" not in str(caught.value)


def test_a_stream_cut_between_two_batches_is_seen(tmp_path: Path) -> None:
    path = write(tmp_path / "f.arrow", "stream")
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(DataError, match=r"^f\.arrow: not a whole arrow file: its end is missing"):
        read_rows(path)


def test_damage_inside_a_parquet_file_is_one_line(tmp_path: Path) -> None:
    path = write(tmp_path / "f.parquet", "parquet")
    whole = bytearray(path.read_bytes())
    whole[60:400] = b"\xff" * 340
    path.write_bytes(bytes(whole))
    with pytest.raises(
        DataError, match=r"^f\.parquet: not a readable parquet file: .*fetch it again"
    ):
        read_rows(path)


@pytest.mark.parametrize("name", ["f.arrow", "f.parquet", "f.jsonl.gz", "f.csv", "f.json", "f.txt"])
def test_a_git_lfs_pointer_is_told_by_every_reader(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(DataError, match="git-lfs pointer"):
        _raise_all(path)


@pytest.mark.parametrize("how", ["file", "stream", "parquet"])
def test_no_rows_are_no_fault_of_the_reader(tmp_path: Path, how: str) -> None:
    path = tmp_path / ("f.parquet" if how == "parquet" else "f.arrow")
    empty = TABLE.slice(0, 0)
    if how == "parquet":
        pyarrow.parquet.write_table(empty, path)
    else:
        make = pyarrow.ipc.new_file if how == "file" else pyarrow.ipc.new_stream
        with make(str(path), empty.schema) as writer:
            writer.write_table(empty)
    assert read_rows(path)[0] == []


def test_what_datasets_saves_is_read_in_its_order(tmp_path: Path) -> None:
    saved = datasets.Dataset.from_list(VALUES)
    saved.save_to_disk(tmp_path / "one", num_shards=3)
    both = datasets.DatasetDict(train=saved, test=saved.select(range(5)))
    both.save_to_disk(tmp_path / "dict")
    rows, _ = read_rows(tmp_path / "one")
    assert [row.values["n"] for row in rows] == list(range(2500))
    assert rows[-1].place == "one/data-00002-of-00003.arrow:833"
    assert len(read_rows(tmp_path / "dict")[0]) == 2500
    assert len(read_rows(tmp_path / "dict", split="test")[0]) == 5


def _raise_all(path: Path) -> None:
    read_rows(path)[1].raise_if_any()
