"""Rows are read once: what changes them is never stale, and damage is made good."""

from __future__ import annotations

import itertools
import os
import sys
from pathlib import Path
from typing import Any

import datasets
import pytest

from qtune.data import Prepared, prepare
from qtune.data.rows import Encoded, RowStore
from qtune.errors import DataError
from tests.data.building import recipe, write_jsonl
from tests.tiny import tiny_tokenizer

ROWS = [{"prompt": f"{n:04d}", "completion": "abc"} for n in range(20)]


def prepared(folder: Path, rows: list[Any] | None = None, **keys: Any) -> Prepared:
    path = folder / "train.jsonl"
    if rows is not None:
        write_jsonl(path, rows)
    return prepare(recipe(path, cache_dir=str(folder / "cache"), **keys), tiny_tokenizer())


def said(result: Prepared) -> bool:
    return any(line.startswith("rows from the cache") for line in result.report.lines())


def test_the_second_start_reads_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = prepared(tmp_path, ROWS)

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a row is read")

    monkeypatch.setattr(sys.modules["qtune.data.checking"], "read", refuse)
    second = prepared(tmp_path)
    assert (said(first), said(second)) == (False, True)
    assert list(second.train) == list(first.train)
    assert second.train.stop_ids == first.train.stop_ids
    assert second.train.fingerprint == first.train.fingerprint
    assert second.report.to_dict() == first.report.to_dict()


def test_a_changed_file_of_the_same_size_and_time_is_read_again(tmp_path: Path) -> None:
    prepared(tmp_path, ROWS)
    path = tmp_path / "train.jsonl"
    before = path.stat()
    changed = [*ROWS[:-1], {**ROWS[-1], "completion": "abd"}]
    write_jsonl(path, changed)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    second = prepared(tmp_path)
    assert not said(second)
    assert second.train[19].answer == "abd"


def test_settings_that_shape_rows_make_other_entries(tmp_path: Path) -> None:
    prepared(tmp_path, ROWS)
    for keys in ({"train_on": "all"}, {"max_length": 100}, {"source": {"max_rows": 3}}):
        assert not said(prepared(tmp_path, **keys)), keys
    assert said(prepared(tmp_path, val_size=2, source={"weight": 2.0}))


@pytest.mark.parametrize("damage", ["short", "gone", "meta"])
def test_a_damaged_entry_is_made_anew(tmp_path: Path, damage: str) -> None:
    first = prepared(tmp_path, ROWS)
    (entry,) = (tmp_path / "cache").iterdir()
    file = entry / ("meta.json" if damage == "meta" else "ids")
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-3])
    second = prepared(tmp_path)
    assert not said(second)
    assert second.train.fingerprint == first.train.fingerprint
    assert said(prepared(tmp_path))


def test_faulty_rows_leave_no_entry(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="keep a learnt token"):
        prepared(tmp_path, ROWS, max_length=2, overlong="truncate_end")
    assert not list((tmp_path / "cache").glob("*"))


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    result = prepared(tmp_path, ROWS)
    assert len(result.train) == 20
    assert any("is not writable" in line for line in result.report.lines())


def test_unused_entries_go_when_another_is_made(tmp_path: Path) -> None:
    prepared(tmp_path, ROWS)
    (entry,) = (tmp_path / "cache").iterdir()
    os.utime(entry, (0, 0))
    prepared(tmp_path, max_length=100)
    assert entry not in list((tmp_path / "cache").iterdir())


def test_rows_are_encoded_inside_the_cache_and_a_fault_leaves_no_draft(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a folder elsewhere is made")

    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["qtune.data.store"].tempfile, "mkdtemp", refuse)
        patch.setattr(sys.modules["qtune.data.cache"], "writable", lambda _: True)
        (tmp_path / "cache").mkdir()
        result = prepared(tmp_path, ROWS)
    assert result.train.fingerprint == prepared(tmp_path).train.fingerprint
    with pytest.raises(Exception, match="keep a learnt token"):
        prepared(tmp_path, ROWS, max_length=2, overlong="truncate_end")
    assert [len(path.name) for path in (tmp_path / "cache").iterdir()] == [64]


def test_rows_of_files_that_change_meanwhile_are_used_and_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = (f"{number:064d}" for number in itertools.count())
    monkeypatch.setattr(sys.modules["qtune.data.cache"], "key_of", lambda *_, **__: next(keys))
    result = prepared(tmp_path, ROWS)
    assert [row.answer for row in result.train] == ["abc"] * 20
    assert not list((tmp_path / "cache").iterdir())


def test_drafts_of_killed_processes_are_swept(tmp_path: Path) -> None:
    left = tmp_path / "cache" / f".{'a' * 64}.123.partial"
    fresh = tmp_path / "cache" / f".{'b' * 64}.124.partial"
    for folder in (left, fresh):
        folder.mkdir(parents=True)
    os.utime(left, (0, 0))
    prepared(tmp_path, ROWS)
    assert (left.exists(), fresh.exists()) == (False, True)


def test_rows_of_the_hub_are_kept_by_what_datasets_calls_their_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = [datasets.Dataset.from_list(ROWS)]
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: hub[0])

    def from_hub() -> Prepared:
        asked = recipe(Path("someone/something"), cache_dir=str(tmp_path / "cache"))
        return prepare(asked, tiny_tokenizer())

    first, second = from_hub(), from_hub()
    assert (said(first), said(second)) == (False, True)
    assert second.train.fingerprint == first.train.fingerprint
    assert second.train[3].place == "someone/something[train]:4"
    hub[0] = datasets.Dataset.from_list(ROWS[:7])
    assert (len(from_hub().train), said(from_hub())) == (7, True)
    hub[0] = datasets.Dataset.from_list(ROWS[:5])
    hub[0]._fingerprint = None
    assert [said(from_hub()), said(from_hub()), len(from_hub().train)] == [False, False, 5]


def test_a_row_whose_bytes_have_changed_is_refused() -> None:
    store = RowStore()
    for number in (1, 2):
        store.add(Encoded(file="a", number=number, ids=[5, 6, 7], learnt=[False, True, True]))
    store.columns.finish({})
    path = store.columns.folder / "ids"
    path.chmod(0o600)
    with path.open("r+b") as stream:
        stream.seek(-1, 2)
        stream.write(b"\x01")
    assert store.row(0).input_ids == [5, 6, 7]
    with pytest.raises(DataError, match="the encoded row 2 is not what was stored"):
        store.row(1)
