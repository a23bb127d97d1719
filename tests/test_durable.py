"""Files that are whole or absent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from qtune import durable
from qtune.durable import make_folder, require_writable, write_bytes, write_json, write_text
from qtune.errors import ResourceError


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "old")
    write_text(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "new"
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a", float("inf"))
    assert (tmp_path / "a").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_full_disk_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bytes(tmp_path / "a", b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_bytes(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_folder_appears_when_it_is_whole(tmp_path: Path) -> None:
    seen: list[bool] = []

    def fill(draft: Path) -> None:
        draft.mkdir()
        (draft / "one").write_text("1")
        seen.append((tmp_path / "made").exists())

    make_folder(tmp_path / "made", fill)
    assert seen == [False]
    assert (tmp_path / "made" / "one").read_text() == "1"
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_a_folder_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail(draft: Path) -> None:
        draft.mkdir()
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        make_folder(tmp_path / "made", fail)
    assert list(tmp_path.iterdir()) == []


def test_a_place_where_nothing_can_be_made_is_told_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    require_writable(tmp_path / "new" / "deep")
    with pytest.raises(ResourceError, match="file is a file"):
        require_writable(tmp_path / "file" / "deep")
    monkeypatch.setattr(os, "access", lambda path, _: path != tmp_path)
    with pytest.raises(ResourceError, match="is not writable"):
        require_writable(tmp_path / "new" / "deep")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_disk_gone_read_only_is_told_as_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def locked(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    def gone(*_: object, **__: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "open", locked)
    monkeypatch.setattr(Path, "unlink", gone)
    with pytest.raises(OSError, match="Read-only"):
        write_bytes(tmp_path / "a", b"new")


def test_files_in_folders_of_a_folder_reach_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "one" / "two").mkdir(parents=True)
    (tmp_path / "one" / "two" / "file").write_text("1")
    flushed: list[str] = []
    monkeypatch.setattr(durable, "flush", lambda path: flushed.append(path.name))
    durable.flush_tree(tmp_path / "one")
    assert sorted(flushed) == ["file", "one", "two"]
