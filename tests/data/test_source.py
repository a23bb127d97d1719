"""From a path to its reader, and what a wrong path is told."""

from __future__ import annotations

from pathlib import Path

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from qtune.data import prepare
from qtune.errors import DataError
from tests.data.building import read_rows, recipe, write_jsonl
from tests.tiny import tiny_tokenizer


def test_a_missing_file_offers_the_nearest_names(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "train.jsonl", [{}])
    with pytest.raises(DataError, match=r"no such file or folder \(did you mean train\.jsonl\?\)"):
        read_rows(tmp_path / "trian.jsonl")


def test_a_missing_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no folder"):
        read_rows(tmp_path / "nowhere" / "train.jsonl")


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("f.xlsx", "write its table as csv"),
        ("f.zip", "unpack it"),
        ("f.jsonl.zst", "pack it with gzip"),
        ("f.xml", "write its rows as jsonl"),
        ("f.parquet.gz", r"known: .*\.parquet"),
        ("f.bin", r"known: .*\.jsonl"),
    ],
)
def test_an_unknown_kind_says_what_to_do(tmp_path: Path, name: str, advice: str) -> None:
    (tmp_path / name).write_text("x")
    with pytest.raises(DataError, match=rf"unknown kind of file .*{advice}"):
        read_rows(tmp_path / name)


@pytest.mark.parametrize("name", ["f.jsonl", "f.json", "f.csv", "f.txt"])
def test_an_empty_file_has_no_rows(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("")
    with pytest.raises(DataError, match=rf"^{name}: no rows"):
        prepare(recipe(path), tiny_tokenizer())


def test_parquet_rows_are_numbered(tmp_path: Path) -> None:
    values = [{"prompt": f"p{n}", "completion": f"c{n}"} for n in range(3000)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(values), tmp_path / "f.parquet")
    rows, _ = read_rows(tmp_path / "f.parquet")
    assert [row.values for row in rows] == values
    assert rows[-1].place == "f.parquet:3000"


def test_a_broken_parquet_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "f.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(DataError, match=r"^f\.parquet: not a readable parquet file"):
        read_rows(tmp_path / "f.parquet")


def test_hub_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, object] = {}

    def load(path: str, **keys: object) -> datasets.Dataset:
        asked.update(path=path, **keys)
        return datasets.Dataset.from_list([{"text": "one"}, {"text": "two"}])

    monkeypatch.setattr(datasets, "load_dataset", load)
    rows, _ = read_rows(Path("someone/something"), split="test", config="en", revision="v1")
    assert [row.values["text"] for row in rows] == ["one", "two"]
    assert rows[1].place == "someone/something[test]:2"
    assert asked == {
        "path": "someone/something",
        "name": "en",
        "split": "test",
        "revision": "v1",
    }


def test_a_hub_id_that_does_not_open_is_one_line() -> None:
    with pytest.raises(DataError) as caught:
        read_rows(Path("nobody/nothing"))
    assert str(caught.value).startswith("nobody/nothing: neither a local file nor a hub data set")
    assert "HF_HUB_OFFLINE" in str(caught.value)
    assert "\n" not in str(caught.value)
