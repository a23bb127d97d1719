"""An output folder is whole or not there."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from qtune.errors import OutputError, ResourceError
from qtune.merging import staging
from qtune.merging.staging import check_space, check_target, staged


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_it_appears_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "new" / "merged"
    with staged(target) as folder:
        (folder / "a").write_text("1")
        assert not target.exists()
        assert folder.parent == target.parent  # the same disk, so that the rename is one step
    assert names(target) == ["a"]
    assert names(tmp_path / "new") == ["merged"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, SystemExit])
def test_nothing_is_left_when_it_is_interrupted(tmp_path: Path, error: type[BaseException]) -> None:
    def interrupted() -> None:
        with staged(tmp_path / "merged") as folder:
            (folder / "half").write_text("1")
            raise error

    with pytest.raises(error):
        interrupted()
    assert names(tmp_path) == []


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    def full() -> None:
        with staged(tmp_path / "merged") as folder:
            (folder / "half").write_text("1")
            raise OSError(28, os.strerror(28))

    with pytest.raises(ResourceError, match="No space left"):
        full()
    assert names(tmp_path) == []


def test_a_folder_that_came_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    def raced() -> None:
        with staged(tmp_path / "merged") as folder:
            (folder / "a").write_text("1")
            (tmp_path / "merged").mkdir()
            (tmp_path / "merged" / "theirs").write_text("2")

    with pytest.raises(ResourceError):
        raced()
    assert names(tmp_path / "merged") == ["theirs"]


def test_existing_outputs_are_refused(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("file", "full", "link"):
        with pytest.raises(OutputError, match="exists already"):
            check_target(tmp_path / name, protected=[base])
    (tmp_path / "empty").mkdir()
    check_target(tmp_path / "empty", protected=[base])
    with staged(tmp_path / "empty") as folder:
        (folder / "a").write_text("1")
    assert names(tmp_path / "empty") == ["a"]


def test_the_base_and_the_run_are_never_written_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tmp_path / "base"
    (base / "deep").mkdir(parents=True)
    monkeypatch.chdir(base)
    for target in (base, base / "new", base / "deep" / "er", Path("here"), base / "x" / ".." / "y"):
        with pytest.raises(OutputError, match="inside a folder that the merge reads"):
            check_target(target, protected=[base])
    check_target(tmp_path / "base-merged", protected=[base])


def test_disk_space_is_asked_for_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging.shutil, "disk_usage", lambda _: SimpleNamespace(free=3 * 10**9))
    check_space(tmp_path / "not" / "yet" / "there", needed=2 * 10**9)
    with pytest.raises(ResourceError, match=r"needs 3\.07 GB of disk, 3\.00 GB are free"):
        check_space(tmp_path / "merged", needed=3 * 10**9)
