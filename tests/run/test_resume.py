"""Interrupted is straight: a run that goes on leaves what the run without a break leaves."""

from __future__ import annotations

import json
import os
import shutil
import signal
from typing import TYPE_CHECKING, Any

import pytest

from qtune.errors import (
    DivergedError,
    OutputError,
    ResourceError,
    ResumeError,
    UsageError,
)
from qtune.run.resume import BEGIN, Wanted
from tests.run.breaking import (
    RESUME,
    STEPS,
    Breaking,
    Crash,
    crash,
    equal,
    run,
    straight_run,
)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return straight_run(tmp_path_factory.mktemp("resume"))


@pytest.mark.parametrize(
    "breaking",
    [
        {"step": 3},
        {"step": 6},
        {"step": 7},
        {"what": "evaluated"},
    ],
    ids=["before an evaluation", "second epoch", "after the last step", "evaluated"],
)
def test_a_crash_changes_nothing(
    place: Path, breaking: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    name = request.node.callspec.id
    with pytest.raises(Crash):
        run(place, name, display=Breaking(crash, **breaking))
    _, code = run(place, name, wanted=RESUME)
    assert code == 0
    equal(place, name)


def test_a_run_that_is_broken_again_and_again_gets_there(place: Path) -> None:
    with pytest.raises(Crash):
        run(place, "often", "logging.steps=1", display=Breaking(crash, step=3))
    for step in (4, 5, 6):
        with pytest.raises(Crash):
            run(
                place, "often", "logging.steps=1", wanted=RESUME, display=Breaking(crash, step=step)
            )
    run(place, "often", "logging.steps=1", wanted=RESUME)
    run(place, "straight by one", "logging.steps=1")
    equal(place, "often", reference="straight by one")


def test_a_crash_before_the_first_checkpoint_begins_again(place: Path) -> None:
    with pytest.raises(Crash):
        run(place, "early", "logging.steps=1", display=Breaking(crash, step=1))
    display = Breaking(crash)
    run(place, "early", "logging.steps=3", wanted=RESUME, display=display)
    assert any("no whole checkpoint yet" in line for line in display.lines)
    equal(place, "early")


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
)
@pytest.mark.parametrize("phase", [{"step": 3}, {"what": "evaluating"}], ids=["step", "evaluation"])
def test_a_signal_saves_and_the_run_goes_on(
    place: Path, number: signal.Signals, code: int, phase: dict[str, Any]
) -> None:
    name = f"{number.name} {phase}"
    once = [number]
    display = Breaking(lambda: os.kill(os.getpid(), once.pop()) if once else None, **phase)
    settings = () if "step" in phase else ("eval.at_start=false",)
    report, found = run(place, name, *settings, display=display)
    assert found == code
    assert not (place / name / "adapter").exists()
    assert not (place / name / "report.json").exists()
    assert report["steps"] == 3
    run(place, name, *settings, wanted=RESUME)
    if settings:
        shutil.rmtree(place / "reference", ignore_errors=True)
        run(place, "reference", *settings)
    equal(place, name, reference="reference" if settings else "straight")


def test_usr1_saves_and_goes_on(place: Path) -> None:
    display = Breaking(lambda: os.kill(os.getpid(), signal.SIGUSR1), step=3)
    settings = ("checkpoint.steps=null", "eval.steps=null", "checkpoint.keep=9")
    _, code = run(place, "usr1", *settings, display=display)
    assert code == 0
    saved = sorted(path.name for path in (place / "usr1" / "checkpoints").iterdir())
    assert saved == ["step-000003", "step-000007"]
    assert "checkpoint of step 3 saved, as USR1 asked" in display.lines


def test_time_is_up_and_the_next_process_goes_on(place: Path) -> None:
    codes = []
    for _ in range(2 * STEPS):
        wanted = RESUME if codes else BEGIN
        _, code = run(place, "short", "train.max_time=0.001s", wanted=wanted)
        codes.append(code)
        if code == 0:
            break
    assert codes[0] == 75
    assert codes[-1] == 0
    assert len(codes) <= STEPS + 2
    equal(place, "short")


def test_checkpoints_by_time(place: Path) -> None:
    settings = ("checkpoint.steps=null", "eval.steps=null", "checkpoint.keep=9")
    run(place, "timed", *settings, "checkpoint.every=0.0001s")
    assert len(list((place / "timed" / "checkpoints").iterdir())) == STEPS


def test_the_newest_few_and_the_best_are_kept(place: Path) -> None:
    run(place, "kept", "checkpoint.steps=1", "checkpoint.keep=2", "optim.learning_rate=3.0")
    report = json.loads((place / "kept" / "report.json").read_text())
    kept = {path.name for path in (place / "kept" / "checkpoints").iterdir()}
    assert kept == {"step-000006", "step-000007", f"step-{report['best']['step']:06d}"}


def test_a_finished_run_has_nothing_to_do(place: Path) -> None:
    before = (place / "straight" / "log.txt").read_bytes()
    report, code = run(place, "straight", wanted=RESUME)
    assert (code, report["steps"]) == (0, STEPS)
    assert (place / "straight" / "log.txt").read_bytes() == before


def test_a_longer_run_goes_on_from_a_finished_one(place: Path) -> None:
    constant = ("optim.lr_scheduler_type=constant", "optim.warmup_steps=2")
    shorter, longer = "train.max_steps=4", f"train.max_steps={STEPS}"
    run(place, "extended", *constant, shorter)
    display = Breaking(crash)
    _, code = run(place, "extended", *constant, longer, wanted=RESUME, display=display)
    assert code == 0
    assert f"changed: train.max_steps was 4, is {STEPS}" in display.lines
    run(place, "long", *constant, longer)
    for folder in ("extended", "long"):
        assert (place / folder / "adapter").is_dir()
    left, right = (
        (place / name / "adapter" / "adapter_model.safetensors").read_bytes()
        for name in ("extended", "long")
    )
    assert left == right
    with pytest.raises(UsageError, match="has done 7 steps already, 4 are asked for"):
        run(place, "extended", *constant, shorter, wanted=RESUME)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            ("optim.lr_scheduler_type=cosine", "optim.warmup_steps=0"),
            "step 5 would have a learning rate of 0.00125, not 0",
        ),
        (
            ("optim.lr_scheduler_type=constant", "optim.warmup_ratio=0.75"),
            "step 5 would have a learning rate of 0.00357, not 0.005",
        ),
        (
            ("optim.lr_scheduler_type=constant", "method.name=adalora", "method.target_rank=2"),
            "AdaLoRA's budget of ranks",
        ),
    ],
)
def test_a_longer_run_keeps_its_schedule_or_says_that_it_does_not(
    place: Path, settings: tuple[str, ...], said: str
) -> None:
    folder = f"moved {settings[1][-6:]}"
    run(place, folder, *settings, "train.max_steps=4")
    longer = (*settings, "train.max_steps=7")
    with pytest.raises(ResumeError, match=said) as told:
        run(place, folder, *longer, wanted=RESUME)
    assert told.value.faults[0].place == "train.max_steps"
    wanted = Wanted(required=True, changes=("train",))
    assert run(place, folder, *longer, wanted=wanted)[0]["steps"] == 7


def test_a_warm_up_that_is_over_moves_nothing(place: Path) -> None:
    settings = ("optim.lr_scheduler_type=constant", "optim.warmup_ratio=0.25")
    run(place, "warm", *settings, "train.max_steps=4")
    report, _ = run(place, "warm", *settings, "train.max_steps=5", wanted=RESUME)
    assert report["steps"] == 5


def test_without_resume_a_run_is_not_touched(place: Path) -> None:
    with pytest.raises(OutputError, match="holds a run already, finished") as caught:
        run(place, "straight")
    hint = "name another folder with -o, or go on with --resume and more train.max_steps"
    assert caught.value.faults[0].hint == hint
    with pytest.raises(UsageError, match="no run to go on with"):
        run(place, "nothing", wanted=RESUME)
    assert not (place / "nothing").exists()


def test_auto_begins_and_goes_on(place: Path) -> None:
    auto = "checkpoint.resume=auto"
    with pytest.raises(Crash):
        run(place, "auto", auto, display=Breaking(crash, step=6))
    run(place, "auto", auto)
    equal(place, "auto")
    _, code = run(place, "auto", auto)
    assert code == 0


def test_a_diverged_run_keeps_its_checkpoint_and_names_the_rows(place: Path) -> None:
    with pytest.raises(DivergedError):
        run(place, "limit", "logging.steps=1", "watchdog.loss_limit=0.5", "watchdog.patience=3")
    said = json.loads((place / "limit" / "diverged.json").read_text())
    assert len(said["rows"]) == 4  # the third step is the smaller last one of the first epoch
    assert all(row.startswith("train.jsonl:") for row in said["rows"])
    assert sorted(p.name for p in (place / "limit" / "checkpoints").iterdir()) == ["step-000002"]
    assert "error: " in (place / "limit" / "log.txt").read_text()


def test_the_watchdogs_patience_outlives_a_crash(place: Path) -> None:
    settings = ("watchdog.loss_limit=0.5", "watchdog.patience=5", "checkpoint.steps=1")
    with pytest.raises(DivergedError, match="step 5: "):
        run(place, "patient", *settings)
    with pytest.raises(Crash):
        run(
            place,
            "patient again",
            *settings,
            "logging.steps=1",
            display=Breaking(crash, step=4),
        )
    with pytest.raises(DivergedError, match="step 5: "):
        run(place, "patient again", *settings, wanted=RESUME)


def test_weights_thrown_to_where_no_gradient_is_end_the_run(place: Path) -> None:
    with pytest.raises(
        DivergedError, match=r"the gradient is exactly zero|no update was made"
    ) as caught:
        run(place, "thrown", "optim.learning_rate=1e6", "eval.steps=null")
    assert "lower optim.learning_rate" in caught.value.faults[0].hint
    assert not (place / "thrown" / "adapter").exists()


def test_a_doubtful_run_says_so(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qtune.run.doubts._WORSE", -9.0)
    display = Breaking(crash)
    report, code = run(place, "worse", "train.max_steps=1", display=display)
    assert code == 0
    assert any(line.startswith("warning: the adapter's held-out loss") for line in display.lines)
    assert len(report["doubts"]) == 1
    said = (place / "worse" / "summary.md").read_text()
    assert "**warning:** the adapter's held-out loss" in said
    assert json.loads((place / "straight" / "report.json").read_text())["doubts"] == []


@pytest.mark.parametrize("name", ["paged_adamw_32bit", "adamw"])
def test_a_checkpoint_is_as_large_as_planned(place: Path, name: str) -> None:
    run(place, f"size {name}", f"optim.name={name}", "train.max_steps=1")
    planned = json.loads((place / f"size {name}" / "plan.json").read_text())
    saved = place / f"size {name}" / "checkpoints" / "step-000001"
    real = sum(path.stat().st_size for path in saved.glob("*.safetensors"))
    headers = 28 * 4 * 200 + 5056  # names, shapes and places of the tensors; the random state
    assert planned["checkpoint_bytes"] < real < planned["checkpoint_bytes"] + headers
    adapter = (saved / "adapter_model.safetensors").stat().st_size
    assert planned["adapter_bytes"] < adapter < planned["adapter_bytes"] + headers


def test_a_disk_too_small_is_refused_before_weights_are_read(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(place)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=2**20))
    monkeypatch.setattr("qtune.models.load", lambda *_, **__: pytest.fail("weights were read"))
    with pytest.raises(ResourceError, match="of disk") as caught:
        run(place, "full")
    assert int(caught.value.code) == 5
    assert not (place / "full").exists()
