"""Files that are whole or absent."""

from __future__ import annotations

import os
import re
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
    with pytest.raises(OSError, match="No space left") as told:
        write_bytes(tmp_path / "a", b"new")
    assert told.value.filename == str(tmp_path / "a")
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
    with pytest.raises(OSError, match="Read-only") as told:
        write_bytes(tmp_path / "a", b"new")
    assert told.value.filename == str(tmp_path / "a")
    with pytest.raises(OSError, match=r"Read-only.*/a'$"):
        durable.append_text(tmp_path / "a", "more")


def test_every_change_of_the_disk_is_told_before_it_is_made(tmp_path: Path) -> None:
    seen: list[tuple[str, str]] = []

    def watch(operation: str, path: Path) -> None:
        seen.append((operation, re.sub("[0-9a-f]{8}", "*", path.name)))

    with durable.watching(watch):
        write_text(tmp_path / "a", "1")
    assert seen == [
        ("open", ".a.*.draft"),
        ("write", ".a.*.draft"),
        ("fsync", ".a.*.draft"),
        ("rename", ".a.*.draft"),
        ("fsync", tmp_path.name),
    ]
    write_text(tmp_path / "a", "2")
    assert len(seen) == 5
    with durable.watching(watch):
        durable.append_text(tmp_path / "a", "3")
        with durable.replaced_folder(tmp_path / "b") as draft:
            durable.copy(tmp_path / "a", draft / "a")
        durable.discard(tmp_path / "b")
    assert [operation for operation, _ in seen[5:]] == [
        "write",
        *("mkdir", "open", "write", "fsync", "fsync", "fsync", "rename", "fsync"),
        *("rename", "fsync", "unlink", "rmdir"),
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_an_operation_that_is_refused_is_not_done(tmp_path: Path) -> None:
    def refuse(operation: str, _: Path) -> None:
        raise OSError(28, f"no {operation}")

    (tmp_path / "a").touch()
    acts = {
        "mkdir": lambda: durable.mkdir(tmp_path / "b"),
        "rename": lambda: durable.rename(tmp_path / "a", tmp_path / "b"),
        "unlink": lambda: durable.unlink(tmp_path / "a"),
        "rmdir": lambda: durable.rmdir(tmp_path),
        "fsync": lambda: durable.flush(tmp_path),
        "open": lambda: write_text(tmp_path / "b", "1"),
    }
    for operation, act in acts.items():
        with pytest.raises(OSError, match=f"no {operation}"), durable.watching(refuse):
            act()
        assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_new_file_is_never_over_another(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("mine")
    with pytest.raises(FileExistsError), durable.new_file(tmp_path / "a"):
        pytest.fail("opened")
    assert (tmp_path / "a").read_text() == "mine"


def test_a_file_is_written_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable, "BLOCK", 3)
    writes: list[str] = []
    with durable.watching(lambda operation, _: writes.append(operation)):
        durable.write_parts(tmp_path / "a", [b"12345", b"", memoryview(b"678")])
    assert (tmp_path / "a").read_bytes() == b"12345678"
    assert writes.count("write") == 3


def test_what_a_kill_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    kept = [".a.draft", "a.0123abcd.draft", ".a.0123abcd.partial", ".env", "b"]
    for name in kept:
        (tmp_path / name).touch()
    durable.hidden(tmp_path / "b", "draft").touch()
    removed = durable.hidden(tmp_path / "c", "removed")
    (removed / "deep").mkdir(parents=True)
    (removed / "deep" / "link").symlink_to(tmp_path)
    durable.sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)


def test_a_folder_gives_way_only_to_a_whole_one(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "old").touch()

    def refuse(operation: str, path: Path) -> None:
        if operation == "rename" and path.name.endswith(".draft"):
            raise OSError(28, "No space left on device")

    told = pytest.raises(OSError, match="No space")
    with told, durable.watching(refuse), durable.replaced_folder(tmp_path / "a") as draft:
        (draft / "new").touch()
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["a", "a/old"]
    with durable.replaced_folder(tmp_path / "a") as draft:
        (draft / "new").touch()
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["a", "a/new"]


def test_files_in_folders_of_a_folder_reach_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "one" / "two").mkdir(parents=True)
    (tmp_path / "one" / "two" / "file").write_text("1")
    flushed: list[str] = []
    monkeypatch.setattr(durable, "flush", lambda path: flushed.append(path.name))
    durable.flush_tree(tmp_path / "one")
    assert sorted(flushed) == ["file", "one", "two"]


def test_a_disk_that_cannot_flush_names_is_no_fault_and_one_that_fails_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = OSError(22, "Invalid argument")

    def fail(_: int) -> None:
        raise fault

    monkeypatch.setattr(os, "fsync", fail)
    (tmp_path / "a").touch()
    durable.flush(tmp_path)
    with pytest.raises(OSError, match="Invalid argument"):
        durable.flush(tmp_path / "a")
    fault = OSError(5, "Input/output error")
    with pytest.raises(OSError, match="Input/output error"):
        durable.flush(tmp_path)
