"""The run folder: whole files, nothing overwritten, best and last kept."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from qtune.errors import OutputError, ResourceError
from qtune.runs import RunFolder


def _made(path: Path) -> RunFolder:
    folder = RunFolder(path)
    folder.create(recipe_yaml="model: {}\n", plan={"fits": True}, env={"qtune": "0"})
    return folder


def _save(step: int) -> object:
    def save(target: Path) -> None:
        target.mkdir()
        (target / "weights").write_text(str(step))

    return save


def _steps(folder: RunFolder) -> list[str]:
    return sorted(path.name for path in folder.checkpoints.iterdir())


def test_what_was_asked_and_decided_is_written(tmp_path: Path) -> None:
    folder = _made(tmp_path / "runs" / "first")
    assert (folder.path / "recipe.yaml").read_text() == "model: {}\n"
    assert json.loads((folder.path / "plan.json").read_text()) == {"fits": True}
    assert sorted(path.name for path in folder.path.iterdir()) == [
        "env.json",
        "log.txt",
        "plan.json",
        "recipe.yaml",
    ]


def test_another_runs_folder_is_refused(tmp_path: Path) -> None:
    _made(tmp_path / "run")
    with pytest.raises(OutputError, match="not empty"):
        RunFolder(tmp_path / "run").check()


def test_of_two_runs_that_start_at_once_one_gets_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RunFolder, "check", lambda _: None)  # both looked before either wrote
    _made(tmp_path / "run")
    with pytest.raises(OutputError, match="just taken"):
        _made(tmp_path / "run")
    assert (tmp_path / "run" / "recipe.yaml").is_file()


def test_an_empty_folder_will_do_and_a_file_will_not(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    RunFolder(tmp_path / "empty").check()
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="is a file"):
        RunFolder(tmp_path / "file").check()


def test_a_folder_that_cannot_be_made_is_told_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ResourceError, match="file is a file"):
        RunFolder(tmp_path / "file" / "run").check()


def test_a_folder_that_cannot_be_filled_is_not_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("qtune.runs.folder.write_json", full)
    with pytest.raises(ResourceError, match="cannot write the run folder: No space"):
        _made(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_full_disk_is_told_with_the_checkpoint_that_is_safe(tmp_path: Path) -> None:
    folder = _made(tmp_path / "run")
    folder.save_checkpoint(5, _save(5), keep=set())
    safe = pytest.raises(ResourceError, match=r"No space.*checkpoints/step-000005 is whole")
    with safe, folder.writing():
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(ConnectionError), folder.writing():
        raise ConnectionError


def test_best_and_last_are_kept(tmp_path: Path) -> None:
    folder = _made(tmp_path / "run")
    folder.save_checkpoint(10, _save(10), keep=set())
    folder.save_checkpoint(20, _save(20), keep={10})
    assert _steps(folder) == ["step-000010", "step-000020"]
    folder.save_checkpoint(30, _save(30), keep={10})
    assert _steps(folder) == ["step-000010", "step-000030"]
    folder.save_checkpoint(40, _save(40), keep={40})
    assert _steps(folder) == ["step-000040"]


def test_weights_that_cannot_be_saved_leave_the_old_ones(tmp_path: Path) -> None:
    folder = _made(tmp_path / "run")
    folder.save_checkpoint(10, _save(10), keep=set())

    def fail(_: Path) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        folder.save_checkpoint(20, fail, keep=set())
    assert _steps(folder) == ["step-000010"]


def test_the_result_is_a_copy_of_its_step(tmp_path: Path) -> None:
    folder = _made(tmp_path / "run")
    folder.save_checkpoint(10, _save(10), keep=set())
    folder.publish(10)
    assert (folder.adapter / "weights").read_text() == "10"
    assert [path.name for path in folder.path.glob(".*")] == []


def test_metrics_are_lines_of_json(tmp_path: Path) -> None:
    folder = _made(tmp_path / "run")
    folder.append_metrics({"step": 1, "loss": 2.5})
    folder.append_metrics({"step": 2, "loss": 2.25})
    lines = (folder.path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["loss"] for line in lines] == [2.5, 2.25]
    with pytest.raises(ValueError, match="JSON"):
        folder.append_metrics({"loss": float("nan")})


def test_a_folder_that_could_not_be_claimed_keeps_what_another_put_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(tmp_path / "run")

    def taken_and_full() -> None:
        (folder.path / "other.txt").write_text("another run's")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folder, "_claim", taken_and_full)
    with pytest.raises(ResourceError, match="No space left"):
        folder.create(recipe_yaml="", plan={}, env={})
    assert (folder.path / "other.txt").read_text() == "another run's"
