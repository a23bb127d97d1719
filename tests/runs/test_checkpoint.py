"""Checkpoints: whole or absent, verified when read, removed by step number."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qtune.errors import ModelError, ResourceError
from qtune.runs import checkpoint
from tests.runs.small import contents, filler, save_step


def test_what_was_saved_is_read_with_its_facts(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    save_step(folder, 10, recipe="a", seconds=1.5)
    found = checkpoint.read(folder / "step-000010")
    assert (found.step, found.facts) == (10, {"recipe": "a", "seconds": 1.5})
    assert contents(found.path).keys() == {
        "state.json",
        "adapter_model.safetensors",
        "optim.safetensors",
    }
    said = json.loads((found.path / "MANIFEST.json").read_text())
    assert said["files"]["state.json"]["size"] == (found.path / "state.json").stat().st_size
    assert [path.name for path in folder.iterdir()] == ["step-000010"]


def test_a_missing_file_says_so_with_checkpoint_and_file(tmp_path: Path) -> None:
    save_step(tmp_path, 10)
    (tmp_path / "step-000010" / "optim.safetensors").unlink()
    with pytest.raises(ModelError, match=r"step-000010: optim.safetensors missing"):
        checkpoint.read(tmp_path / "step-000010")


def test_a_folder_under_another_steps_name_is_refused(tmp_path: Path) -> None:
    save_step(tmp_path, 10)
    (tmp_path / "step-000010").rename(tmp_path / "step-000020")
    with pytest.raises(ModelError, match="it is the checkpoint of step 10"):
        checkpoint.read(tmp_path / "step-000020")
    (tmp_path / "step-000020").rename(tmp_path / "kept")
    assert checkpoint.read(tmp_path / "kept").step == 10


def test_the_newest_whole_one_wins_and_the_others_are_named(tmp_path: Path) -> None:
    for step in (5, 10, 1000000, 20):
        save_step(tmp_path, step)
    (tmp_path / "step-000020" / "state.json").write_text("{}")
    (tmp_path / "step-1000000" / "MANIFEST.json").unlink()
    newest = checkpoint.newest_valid(tmp_path)
    assert newest.checkpoint is not None
    assert newest.checkpoint.step == 10
    assert [name for name, _ in newest.skipped] == ["step-1000000", "step-000020"]
    assert "state.json has 2 bytes where" in newest.skipped[1][1]
    assert checkpoint.newest_valid(tmp_path / "absent").checkpoint is None


@pytest.mark.parametrize("name", ["optimizer.pt", "state.pkl", "state.json", "a.safetensors"])
def test_a_pickle_is_refused_under_every_name(tmp_path: Path, name: str) -> None:
    def fill(draft: Path) -> None:
        (draft / name).write_bytes(b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x01a\x94.")

    with pytest.raises(ModelError, match=f"{name} is neither safetensors nor JSON"):
        checkpoint.save(tmp_path / "step-000010", fill, facts={})
    assert list(tmp_path.iterdir()) == []


def test_a_link_is_refused(tmp_path: Path) -> None:
    def fill(draft: Path) -> None:
        (draft / "state.json").symlink_to(tmp_path)

    with pytest.raises(ModelError, match=r"state.json is a link"):
        checkpoint.save(tmp_path / "step-000010", fill, facts={})


def test_files_in_folders_are_kept_too(tmp_path: Path) -> None:
    def fill(draft: Path) -> None:
        (draft / "method").mkdir()
        (draft / "method" / "ranks.json").write_text("[1]")

    target = tmp_path / "step-000010"
    checkpoint.save(target, fill, facts={})
    assert checkpoint.read(target).step == 10
    (target / "empty").mkdir()
    with pytest.raises(ModelError, match="empty was not written by its run"):
        checkpoint.read(target)


def test_another_checkpoint_of_the_same_step_gives_way(tmp_path: Path) -> None:
    target = tmp_path / "step-000010"
    save_step(tmp_path, 10)
    (target / "state.json").write_text("{}")
    save_step(tmp_path, 10)
    save_step(tmp_path, 10, recipe="other")
    assert checkpoint.read(target).facts == {"recipe": "other"}
    assert [path.name for path in tmp_path.iterdir()] == ["step-000010"]


def test_a_later_format_is_told_as_that(tmp_path: Path) -> None:
    save_step(tmp_path, 10)
    path = tmp_path / "step-000010" / "MANIFEST.json"
    path.write_text(path.read_text().replace('"format": 2', '"format": 3'))
    with pytest.raises(ModelError, match="has format 3, this qtune reads 2"):
        checkpoint.read(path.parent)


def test_a_fault_in_the_content_leaves_nothing(tmp_path: Path) -> None:
    def fill(draft: Path) -> None:
        filler(10)(draft)
        raise ValueError("no such tensor")

    with pytest.raises(ValueError, match="no such tensor"):
        checkpoint.save(tmp_path / "step-000010", fill, facts={})
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_says_what_is_needed_and_free(tmp_path: Path) -> None:
    def fill(draft: Path) -> None:
        filler(10)(draft)
        raise PermissionError(13, "Permission denied")

    with pytest.raises(
        ResourceError, match=r"Permission denied; it needs [\d.]+ .?B or more, [\d.]+ .?B"
    ):
        checkpoint.save(tmp_path / "step-000010", fill, facts={})


def test_names_that_are_no_checkpoints_are_not_touched(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        save_step(tmp_path, step)
    foreign = ["step-000040.txt", "step-5", "step-0000050", "mine"]
    for name in foreign:
        (tmp_path / name).mkdir()
    (tmp_path / "step-000060").touch()
    (tmp_path / "step-000070").symlink_to(tmp_path / "mine")
    checkpoint.retain(tmp_path, {20})
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"step-000020", "step-000060", "step-000070", *foreign}


def test_retention_never_removes_everything(tmp_path: Path) -> None:
    save_step(tmp_path, 10)
    checkpoint.retain(tmp_path, {20})
    checkpoint.retain(tmp_path, set())
    assert checkpoint.checkpoints(tmp_path).keys() == {10}
