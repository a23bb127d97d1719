"""The run folder: whole files, nothing overwritten, best and newest kept."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from qtune import durable
from qtune.errors import ModelError, OutputError, ResourceError
from qtune.runs import RunFolder
from qtune.runs.folder import space_needed
from tests.runs.small import files, filler

START = {"recipe_yaml": "model: {}\n", "plan": {"fits": True}, "env": {"qtune": "0"}}


@contextmanager
def _held(path: Path) -> Iterator[RunFolder]:
    folder = RunFolder(path)
    with folder.held():
        folder.create(**START)
        yield folder


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[RunFolder]:
    with _held(tmp_path / "run") as made:
        yield made


def _save(folder: RunFolder, step: int, *, newest: int = 1, pinned: tuple[int, ...] = ()) -> None:
    folder.save_checkpoint(step, filler(step), facts={}, newest=newest, pinned=pinned)


def _names(path: Path) -> list[str]:
    return sorted(item.name for item in path.iterdir())


def _steps(folder: RunFolder) -> list[int]:
    return [int(name.removeprefix("step-")) for name in _names(folder.checkpoints)]


def test_what_was_asked_and_decided_is_written(tmp_path: Path) -> None:
    with _held(tmp_path / "runs" / "first") as folder:
        assert folder.holds_run()
    assert (folder.path / "recipe.yaml").read_text() == "model: {}\n"
    assert json.loads((folder.path / "plan.json").read_text()) == {"fits": True}
    assert _names(folder.path) == ["env.json", "log.txt", "plan.json", "recipe.yaml"]


def test_another_runs_folder_is_refused(folder: RunFolder) -> None:
    with pytest.raises(OutputError, match="not empty"):
        RunFolder(folder.path).check()
    with pytest.raises(OutputError, match="in use by process"), RunFolder(folder.path).held():
        pytest.fail("held twice")


def test_an_empty_folder_will_do_and_a_file_will_not(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    RunFolder(tmp_path / "empty").check()
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="is a file"):
        RunFolder(tmp_path / "file").check()
    with pytest.raises(OutputError, match="is a file"), RunFolder(tmp_path / "file").held():
        pytest.fail("held a file")


def test_a_folder_that_cannot_be_made_is_told_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ResourceError, match="file is a file"):
        RunFolder(tmp_path / "file" / "run").check()


def test_a_folder_that_stays_empty_is_taken_away_with_those_above_it(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "runs" / "deep" / "first").held():
        assert (tmp_path / "runs" / "deep" / "first").is_dir()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    with RunFolder(tmp_path / "mine").held():
        pass
    assert _names(tmp_path) == ["mine"]


def test_another_tools_folder_is_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text("{}")
    folder = RunFolder(tmp_path)
    with folder.held(), pytest.raises(OutputError, match="not empty"):
        folder.create(**START)
    assert (tmp_path / "plan.json").read_text() == "{}"
    assert _names(tmp_path) == ["plan.json"]


def test_a_folder_that_cannot_be_filled_is_not_left_behind(tmp_path: Path) -> None:
    for failing in ("plan.json", "env.json", "recipe.yaml"):

        def full(_: str, path: Path, failing: str = failing) -> None:
            if failing in path.name:
                raise OSError(errno.ENOSPC, "No space left on device")

        told = pytest.raises(ResourceError, match="cannot write the run folder: No space")
        with told, durable.watching(full), _held(tmp_path / "run"):
            pytest.fail("written on a full disk")
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("last", ["log.txt", "plan.json", "env.json"])
def test_a_run_killed_before_it_had_begun_is_as_if_it_had_not_been(
    tmp_path: Path, last: str
) -> None:
    path = tmp_path / "run"
    path.mkdir()
    for name in ("log.txt", "plan.json", "env.json"):
        (path / name).touch()
        if name == last:
            break
    durable.hidden(path / "env.json", "draft").touch()
    assert not RunFolder(path).holds_run()
    with _held(path) as folder:
        assert folder.holds_run()
    assert _names(path) == ["env.json", "log.txt", "plan.json", "recipe.yaml"]


def test_a_run_that_goes_on_keeps_its_files_and_sweeps_what_a_kill_left(tmp_path: Path) -> None:
    with _held(tmp_path / "run") as folder:
        _save(folder, 10)
    durable.hidden(folder.path / "report.json", "draft").touch()
    with folder.held():
        folder.reopen(recipe_yaml="new", plan={}, env={})
        assert _steps(folder) == [10]
    assert (folder.path / "recipe.yaml").read_text() == "new"
    assert not list(folder.path.glob(".*"))


def test_a_full_disk_is_told_with_the_checkpoint_that_is_safe(folder: RunFolder) -> None:
    _save(folder, 5)
    safe = pytest.raises(ResourceError, match=r"No space.* free .*checkpoints/step-000005 is saved")
    with safe, folder.writing():
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(ConnectionError), folder.writing():
        raise ConnectionError


def test_best_and_newest_are_kept(folder: RunFolder) -> None:
    _save(folder, 10)
    _save(folder, 20, pinned=(10,))
    assert _steps(folder) == [10, 20]
    _save(folder, 30, pinned=(10,))
    assert _steps(folder) == [10, 30]
    _save(folder, 40, newest=2)
    assert _steps(folder) == [30, 40]


def test_a_damaged_checkpoint_takes_no_sound_ones_place(folder: RunFolder) -> None:
    for step in (10, 20, 30):
        _save(folder, step, newest=3)
    (folder.checkpoint(30) / "state.json").write_text("{}")
    later = RunFolder(folder.path)
    later.save_checkpoint(25, filler(25), facts={}, newest=2)
    assert _steps(folder) == [20, 25]


def test_weights_that_cannot_be_saved_leave_the_old_ones(folder: RunFolder) -> None:
    _save(folder, 10)

    def fail(_: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(ResourceError, match="No space left"):
        folder.save_checkpoint(20, fail, facts={}, newest=1)
    assert _steps(folder) == [10]


def test_the_result_is_the_adapter_of_its_step(folder: RunFolder) -> None:
    _save(folder, 10)
    _save(folder, 20, newest=2)
    folder.publish(10)
    folder.publish(20)  # an extended run ends again
    assert _names(folder.adapter) == ["adapter_model.safetensors"]
    assert (folder.adapter / "adapter_model.safetensors").read_bytes() == (
        files(20)["adapter_model.safetensors"]
    )
    assert not [path for path in folder.path.glob(".*") if path.name != ".lock"]


def test_a_damaged_result_is_not_published(folder: RunFolder) -> None:
    _save(folder, 10)
    path = folder.checkpoint(10) / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(ModelError, match=r"adapter_model.safetensors is not what was written"):
        folder.publish(10)
    assert not folder.adapter.exists()


def test_metrics_are_lines_of_json(folder: RunFolder) -> None:
    folder.append_metrics({"step": 1, "loss": 2.5})
    folder.append_metrics({"step": 2, "loss": 2.25})
    lines = (folder.path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["loss"] for line in lines] == [2.5, 2.25]
    with pytest.raises(ValueError, match="JSON"):
        folder.append_metrics({"loss": float("nan")})


def test_metrics_after_a_checkpoint_are_cut_with_what_a_kill_left(folder: RunFolder) -> None:
    folder.cut_metrics(5, evaluated=True)
    for step in (1, 2, 3):
        folder.append_metrics({"kind": "train", "step": step})
        folder.append_metrics({"kind": "eval", "step": step})
    with (folder.path / "metrics.jsonl").open("a") as stream:
        stream.write('{"kind": "train", "step": 1')

    def kept() -> list[tuple[str, int]]:
        lines = (folder.path / "metrics.jsonl").read_text().splitlines()
        return [(record["kind"], record["step"]) for record in map(json.loads, lines)]

    folder.cut_metrics(2, evaluated=True)
    assert kept() == [("train", 1), ("eval", 1), ("train", 2), ("eval", 2)]
    folder.cut_metrics(2, evaluated=False)
    assert kept() == [("train", 1), ("eval", 1), ("train", 2)]


def test_a_disk_too_small_is_told_before_training(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = space_needed(checkpoint=1000, adapter=300, kept=3)
    assert needed == 4300
    usage = shutil.disk_usage(folder.path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=2**24 + 4300))
    folder.require_space(needed)
    with pytest.raises(ResourceError, match=r"needs 16\.8 MB of disk, 16\.8 MB are free"):
        folder.require_space(needed + 1)
    _save(folder, 10)  # what a run has written it need not write again
    folder.require_space(needed + 1)


def test_rows_of_a_divergence_and_the_report_are_written(folder: RunFolder) -> None:
    assert folder.read_report() is None
    folder.write_report({"steps": 3})
    assert folder.read_report() == {"steps": 3}
    folder.write_diverged("the loss is nan", rows=("/somewhere/else/a.jsonl:3",))
    assert json.loads((folder.path / "diverged.json").read_text()) == {
        "message": "the loss is nan",
        "rows": ["a.jsonl:3"],
    }
