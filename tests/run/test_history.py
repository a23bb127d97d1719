"""Runs read afterwards, in every state they can be in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from qtune.errors import UsageError
from qtune.run.history import diff_runs, list_runs, show_run
from qtune.runs import lock

REPORT: dict[str, Any] = {
    "steps": 20,
    "loss_first": 3.0,
    "loss_last": 1.0,
    "tokens_per_second": 500.0,
    "best": {"metric": "loss", "step": 10, "value": 0.75},
    "adapter_step": 10,
    "memory": {"measured_peak_bytes": 1000},
    "evaluations": [{"step": 0, "loss": 4.0}, {"step": 10, "loss": 0.75}],
    "gates": [{"gate": "max_loss", "passed": False}],
}


def _run(folder: Path, *, finished: bool = True, log: str = "", **settings: Any) -> Path:
    """A run folder without training."""
    folder.mkdir(parents=True)
    plain: dict[str, Any] = {"model": {"name_or_path": "org/m"}, "data": {"train": [{"path": "d"}]}}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(plain | settings))
    (folder / "plan.json").write_text(json.dumps({"micro_batch_size": 4, "steps": {"total": 20}}))
    (folder / "env.json").write_text(json.dumps({"qtune": "1", "packages": {"torch": "2"}}))
    records = [{"kind": "train", "step": step, "loss": 4.0 - step / 10} for step in (5, 12)]
    records.append({"kind": "eval", "step": 12, "loss": 2.0})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
    (folder / "log.txt").write_text(log)
    if finished:
        (folder / "adapter").mkdir()
        (folder / "adapter" / "adapter_config.json").write_text("{}")
        (folder / "report.json").write_text(json.dumps(REPORT))
    return folder


def _one(folder: Path) -> dict[str, Any]:
    [found] = list_runs(folder)
    return found


def test_a_finished_run(tmp_path: Path) -> None:
    found = _one(_run(tmp_path / "a"))
    assert (found["name"], found["state"], found["step"], found["total_steps"]) == (
        *("a", "finished"),
        *(20, 20),
    )
    assert (found["loss_first"], found["loss_last"], found["best"]) == (3.0, 1.0, REPORT["best"])
    assert (found["tokens_per_second"], found["gates_failed"]) == (500.0, 1)
    assert (found["adapter_bytes"], found["faults"]) == (2, [])


@pytest.mark.parametrize(
    ("log", "state", "reason"),
    [
        ("step 12/20  loss 1\n", "unfinished", ""),
        ("x\nerror: loss is nan (see it)\n", "failed", "loss is nan (see it)"),
        ("stopped after step 12, saved\n", "stopped", "stopped after step 12, saved"),
        ("stopped after step 5\nresuming\nstep 12/20\n", "unfinished", ""),
        ("", "unfinished", ""),
    ],
)
def test_a_run_without_a_report(tmp_path: Path, log: str, state: str, reason: str) -> None:
    run = _run(tmp_path / "a", finished=False, log=log)
    (run / "checkpoints" / "step-000014").mkdir(parents=True)
    found = _one(run)
    assert (found["state"], found["reason"]) == (state, reason)
    assert (found["step"], found["total_steps"]) == (14, 20)
    assert (found["loss_first"], found["loss_last"]) == (3.5, 2.8)
    assert found["adapter_bytes"] is None


def test_a_finished_run_that_was_made_longer_and_broke_off(tmp_path: Path) -> None:
    run = _run(tmp_path / "a", log="step 25/40  loss 1\n")
    (run / "plan.json").write_text(json.dumps({"steps": {"total": 40}}))
    assert _one(run)["state"] == "finished"
    (run / "checkpoints" / "step-000025").mkdir(parents=True)
    found = _one(run)
    assert (found["state"], found["step"], found["total_steps"]) == ("unfinished", 25, 40)


def test_a_run_that_is_running(tmp_path: Path) -> None:
    run = _run(tmp_path / "a", finished=False)
    with lock.hold(run):
        assert _one(run)["state"] == "running"
    assert _one(run)["state"] == "unfinished"


@pytest.mark.parametrize("name", ["report.json", "plan.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", b"[" * 100_000, b"folder"])
def test_a_damaged_file_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    run = _run(tmp_path / "a")
    (run / name).unlink()
    if content == b"folder":
        (run / name).mkdir()
    else:
        (run / name).write_bytes(content)
    found = _one(run)
    assert found["state"] == "damaged"
    assert found["faults"][0].startswith(f"{name}: ")
    assert show_run(run)["faults"] == found["faults"]
    other = _run(tmp_path / "b")
    if name == "report.json":
        assert diff_runs(run, other)["faults"] == {str(run): found["faults"]}


@pytest.mark.parametrize(
    "report",
    [
        {"steps": "many", "best": 3, "evaluations": {}, "gates": "x", "memory": []},
        {"steps": None, "best": {"value": "x"}, "evaluations": [1], "gates": [2]},
        {
            "loss_last": float("nan"),
            "best": {"metric": 1, "value": 2},
            "memory": {"measured_peak_bytes": "1"},
        },
    ],
)
def test_values_of_another_type_count_as_absent(tmp_path: Path, report: dict[str, Any]) -> None:
    run = _run(tmp_path / "a")
    (run / "report.json").write_text(json.dumps(report))
    found = _one(run)
    assert (found["step"], found["best"], found["loss_last"]) == (None, None, None)
    json.dumps([show_run(run), diff_runs(run, _run(tmp_path / "b"))], allow_nan=False)


def test_missing_files_are_named(tmp_path: Path) -> None:
    run = _run(tmp_path / "a")
    (run / "adapter" / "adapter_config.json").unlink()
    (run / "recipe.yaml").unlink()
    found = show_run(run)
    assert found["state"] == "damaged"
    assert found["faults"] == ["adapter: is not there", "recipe.yaml: is not there"]


def test_a_torn_last_line_of_metrics_is_no_fault(tmp_path: Path) -> None:
    run = _run(tmp_path / "a", finished=False)
    whole = (run / "metrics.jsonl").read_text()
    (run / "metrics.jsonl").write_text(whole + '{"kind": "tra')
    assert _one(run)["faults"] == []
    (run / "metrics.jsonl").write_text('{"kind"\n' + whole)
    assert _one(run)["faults"] == ["metrics.jsonl:1: not a record"]


def test_only_runs_are_listed(tmp_path: Path) -> None:
    _run(tmp_path / "runs" / "b")
    _run(tmp_path / "runs" / "a")
    (tmp_path / "runs" / "merged").mkdir()
    (tmp_path / "runs" / "file").write_text("")
    assert {one["name"] for one in list_runs(tmp_path / "runs")} == {"a", "b"}
    with pytest.raises(UsageError, match="no such folder"):
        list_runs(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="not a run folder"):
        show_run(tmp_path / "runs" / "merged")


def test_a_run_in_full(tmp_path: Path) -> None:
    run = _run(tmp_path / "a", optim={"learning_rate": 0.5})
    (run / "checkpoints" / "step-000010").mkdir(parents=True)
    (run / "checkpoints" / "step-000010" / "x").write_text("1234")
    shown = show_run(run)
    assert shown["recipe"]["optim.learning_rate"] == 0.5
    assert shown["plan"] == {"micro_batch_size": 4}
    assert shown["checkpoints"] == [{"step": 10, "bytes": 4}]
    assert shown["evaluations"] == REPORT["evaluations"]


def test_two_runs_side_by_side(tmp_path: Path) -> None:
    one = _run(tmp_path / "a", optim={"learning_rate": 0.5})
    pins = {"base": "0" * 64}
    other = _run(tmp_path / "b", finished=False, train={"output_dir": "x", "seed": 7}, pins=pins)
    (other / "env.json").write_text(json.dumps({"qtune": "1", "packages": {"torch": "3"}}))
    found = diff_runs(one, other)
    assert found["recipe"] == {"optim.learning_rate": [0.5, 0.0002], "train.seed": [42, 7]}
    assert found["versions"] == {"torch": ["2", "3"]}
    assert found["measures"]["held-out loss"] == [0.75, 2.0]
    assert found["measures"]["steps"] == [20, None]
    assert found["faults"] == {}
