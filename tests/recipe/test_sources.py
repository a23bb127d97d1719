"""Which files a source names: one, a folder's, those of a glob; and what it is told otherwise."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from qtune.errors import DataError, UsageError
from qtune.recipe import load
from qtune.recipe.inputs import SourceSection
from qtune.recipe.sources import Found, find
from tests.recipe.conftest import Write


def files(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}\n")
    return folder


def found(path: Path | str, **keys: object) -> Found:
    answer = find(SourceSection(path=str(path), **keys))
    assert answer is not None
    return answer


def names(path: Path | str, **keys: object) -> list[str]:
    return [file.name for file in found(path, **keys).paths]


def test_a_folder_holds_its_data_files_in_order(tmp_path: Path) -> None:
    files(
        tmp_path, "b.jsonl", "a.jsonl.gz", "c.ndjson", "README.md", ".hidden.jsonl", "sub/d.jsonl"
    )
    assert names(tmp_path) == ["a.jsonl.gz", "b.jsonl", "c.ndjson"]
    assert found(tmp_path).kind == "jsonl"


def test_labels_begin_at_the_root_or_below_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files(tmp_path, "data/x/a.csv", "data/y/b.csv", "elsewhere/c.csv")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert found(tmp_path / "data" / "*" / "*.csv").labels() == ("data/x/a.csv", "data/y/b.csv")
    assert found(tmp_path / "data" / "x" / "a.csv").labels() == ("a.csv",)
    monkeypatch.chdir(tmp_path / "data")
    assert found(tmp_path / "data" / "x").labels() == ("x/a.csv",)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.jsonl", ["a.jsonl", "b.jsonl"]),
        ("**/*.jsonl", ["a.jsonl", "b.jsonl", "d.jsonl"]),
        ("[a]*", ["a.jsonl"]),
        ("s?b/*", ["d.jsonl"]),
    ],
)
def test_a_glob_names_the_files_it_matches(
    tmp_path: Path, pattern: str, expected: list[str]
) -> None:
    files(tmp_path, "b.jsonl", "a.jsonl", "sub/d.jsonl", ".git/e.jsonl", "README.md")
    assert names(tmp_path / pattern) == expected


def test_a_folder_whose_name_looks_like_a_glob(tmp_path: Path) -> None:
    folder = files(tmp_path / "run [1]", "a.jsonl", "b[2].jsonl")
    assert names(folder / "*.jsonl") == ["a.jsonl", "b[2].jsonl"]
    assert names(folder / "b[2].jsonl") == ["b[2].jsonl"]


@pytest.mark.parametrize(
    ("inside", "path", "message"),
    [
        (("a.jsonl", "b.csv"), "", r"several kinds: a\.jsonl, b\.csv \(.*glob"),
        (("README.md", "sub/a.csv"), "", r"without data files \(it holds README\.md, sub/\)"),
        ((), "", r"without data files \(it is empty\)"),
        (("a.csv",), "*.jsonl", "no file matches"),
        (("a.csv",), "no/*.jsonl", "no file matches .*there is no folder"),
        (("a.csv", "b.md"), "*", r"matches b\.md, which is no data file"),
        (("test.csv", "more.csv"), "", r"more\.csv belongs to no split, others to test"),
    ],
)
def test_what_cannot_be_one_source_lists_what_there_is(
    tmp_path: Path, inside: tuple[str, ...], path: str, message: str
) -> None:
    files(tmp_path, *inside)
    with pytest.raises(DataError, match=message):
        found(tmp_path / path)


def test_a_folder_of_splits_is_never_taken_whole(tmp_path: Path) -> None:
    files(tmp_path, "train-0.csv", "train-1.csv", "test.csv", "dev.csv")
    assert names(tmp_path) == ["train-0.csv", "train-1.csv"]
    assert names(tmp_path, split="validation[:5%]") == ["dev.csv"]
    assert found(tmp_path, split="test").picked
    with pytest.raises(UsageError, match="no split 'other'; there are: test, train, validation"):
        found(tmp_path, split="other")


def test_a_folder_of_one_split_is_whole(tmp_path: Path) -> None:
    assert names(files(tmp_path / "a", "test-1.csv", "test-2.csv")) == ["test-1.csv", "test-2.csv"]
    assert names(files(tmp_path / "b", "train.csv", "more.csv")) == ["more.csv", "train.csv"]
    assert names(tmp_path / "*" / "*.csv", split="train") != []


def test_notes_of_datasets_are_no_data(tmp_path: Path) -> None:
    files(tmp_path, "x-train.arrow", "x-test.arrow", "cache-ab12.arrow", "dataset_info.json")
    assert names(tmp_path) == ["x-train.arrow"]


@pytest.mark.parametrize("listed", ["../a.arrow", "missing.arrow"])
def test_a_saved_folder_lists_files_of_its_own(tmp_path: Path, listed: str) -> None:
    files(tmp_path, "a.arrow")
    state = tmp_path / "saved" / "state.json"
    state.parent.mkdir()
    state.write_text(json.dumps({"_data_files": [{"filename": listed}]}))
    with pytest.raises(DataError, match=r"a?\.arrow, which state\.json lists, is missing"):
        found(tmp_path / "saved")


def test_a_saved_index_is_not_passed_over(tmp_path: Path) -> None:
    state = {"_data_files": [], "_indices_data_files": [{"filename": "i.arrow"}]}
    (tmp_path / "state.json").write_text(json.dumps(state))
    with pytest.raises(DataError, match="saved with an index"):
        found(tmp_path)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "f.jsonl")
    with pytest.raises(DataError, match="neither a plain file nor a folder"):
        found(tmp_path / "f.jsonl")


def test_a_hub_id_is_no_file() -> None:
    assert find(SourceSection(path="owner/name", split="a+b[:5%]")) is None


def test_a_glob_of_a_recipe_begins_at_its_folder(write: Write, tmp_path: Path) -> None:
    files(tmp_path, "data/a.jsonl", "data/b.jsonl")
    path = write("model: m\ndata: {train: [{path: data/*.jsonl}]}\n")
    [source] = load(path).recipe.data.train
    assert Path(source.path).is_absolute()
    assert names(source.path) == ["a.jsonl", "b.jsonl"]
