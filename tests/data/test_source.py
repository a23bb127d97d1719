"""From a path to its reader, and what a wrong path is told."""

from __future__ import annotations

from pathlib import Path

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from qtune.data import prepare
from qtune.errors import DataError, UsageError
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
        "streaming": False,
    }


def test_numbers_of_a_hub_data_set_that_stand_for_labels_are_their_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    label = datasets.ClassLabel(names=["negative", "positive"])
    features = datasets.Features({"text": datasets.Value("string"), "label": label})
    rows = {"text": ["a", "b", "c", "d"], "label": [1, 0, -1, None]}
    made = datasets.Dataset.from_dict(rows, features=features)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: made)
    read, _ = read_rows(Path("someone/something"))
    assert [row.values["label"] for row in read] == ["positive", "negative", -1, None]
    assert [row.values["text"] for row in read] == ["a", "b", "c", "d"]


def test_a_hub_id_that_does_not_open_is_one_line() -> None:
    with pytest.raises(DataError) as caught:
        read_rows(Path("nobody/nothing"))
    assert str(caught.value).startswith("nobody/nothing: neither a local file nor a hub data set")
    assert "HF_HUB_OFFLINE" in str(caught.value)
    assert "\n" not in str(caught.value)


NUMBERED = [{"prompt": f"p{n}", "completion": f"c{n}"} for n in range(57)]


def test_slices_take_the_rows_that_datasets_takes(tmp_path: Path) -> None:
    specs = ["train", "train[:5%]", "train[33%:66%]", "train[-10%:]", "train[10:20]", "train[-3:]"]
    path = write_jsonl(tmp_path / "f.jsonl", NUMBERED)
    theirs = datasets.load_dataset(
        "json", data_files=str(path), split=specs, cache_dir=str(tmp_path / "cache")
    )
    for spec, rows in zip(specs, theirs, strict=True):
        assert [row.values for row in read_rows(path, split=spec)[0]] == list(rows), spec


def test_slices_run_over_all_files_and_keep_places(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    write_jsonl(tmp_path / "data" / "b.jsonl", NUMBERED[30:])
    pyarrow.parquet.write_table(
        pyarrow.Table.from_pylist(NUMBERED), tmp_path / "data" / "other.parquet"
    )
    write_jsonl(tmp_path / "data" / "a.jsonl", NUMBERED[:30])
    rows, _ = read_rows(tmp_path / "data" / "*.jsonl", split="train[50%:]")
    assert [row.values for row in rows] == NUMBERED[28:]
    assert [row.place for row in rows[:3]] == [
        "data/a.jsonl:29",
        "data/a.jsonl:30",
        "data/b.jsonl:1",
    ]
    assert len(read_rows(tmp_path / "data" / "*.jsonl", split="train[5:50]", max_rows=9)[0]) == 9
    assert len(read_rows(tmp_path / "data" / "*.parquet", split="train[:-50]")[0]) == 7


def test_a_slice_of_no_rows_is_said(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "f.jsonl", NUMBERED[:10])
    with pytest.raises(
        DataError, match=r"f\.jsonl\[train\[:1%\]\]: no rows \(its slice takes none"
    ):
        prepare(recipe(path, source={"split": "train[:1%]"}), tiny_tokenizer())


def test_faults_in_rows_outside_the_slice_are_told_once(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    path.write_text('{"a": 1}\noops\n{"a": 2}\n{"a": 3}\n')
    rows, faults = read_rows(path, split="train[-1:]")
    assert [row.values["a"] for row in rows] == [3]
    assert [fault.place for fault in faults.first] == ["f.jsonl:2"]


@pytest.mark.parametrize("name", ["f.jsonl", "f.csv", "f.parquet", "f.arrow", "f.txt"])
def test_a_split_of_a_file_without_splits_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("x")
    kind = name.partition(".")[2]
    with pytest.raises(UsageError, match=f"split has no effect .*a {kind} file has no splits"):
        read_rows(tmp_path / name, split="test[:5%]")


def test_a_folder_of_splits_gives_the_one_asked_for(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "train.jsonl", NUMBERED[:50])
    write_jsonl(tmp_path / "test.jsonl", NUMBERED[50:])
    assert [row.values for row in read_rows(tmp_path)[0]] == NUMBERED[:50]
    assert [row.values for row in read_rows(tmp_path, split="test")[0]] == NUMBERED[50:]


def test_rows_of_a_folder_are_learnt_and_kept_by_content(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    write_jsonl(tmp_path / "data" / "a.jsonl", NUMBERED[:30])
    write_jsonl(tmp_path / "data" / "b.jsonl", NUMBERED[30:])

    def kept() -> tuple[bool, int]:
        asked = recipe(tmp_path / "data", cache_dir=str(tmp_path / "cache"))
        prepared = prepare(asked, tiny_tokenizer())
        return bool(prepared.report.cache), len(prepared.train)

    assert [kept(), kept()] == [(False, 57), (True, 57)]
    write_jsonl(tmp_path / "data" / "c.jsonl", NUMBERED[:1])
    assert [kept(), kept()] == [(False, 58), (True, 58)]
    write_jsonl(tmp_path / "data" / "b.jsonl", NUMBERED[31:])
    assert kept() == (False, 57)
    (tmp_path / "data" / "b.jsonl").rename(tmp_path / "data" / "d.jsonl")
    assert kept() == (False, 57)


def test_the_second_file_that_is_faulty_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    write_jsonl(tmp_path / "data" / "a.jsonl", NUMBERED)
    write_jsonl(tmp_path / "data" / "b.jsonl", [{"prompt": "p"}])
    with pytest.raises(DataError, match=r"^data/b\.jsonl:1: "):
        prepare(recipe(tmp_path / "data"), tiny_tokenizer())
