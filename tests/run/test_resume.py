"""Interrupted is straight: a run that goes on leaves what the run without a break leaves."""

from __future__ import annotations

import json
import os
import shutil
import signal
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from qtune.errors import (
    DivergedError,
    ModelError,
    OutputError,
    QtuneError,
    ResourceError,
    ResumeError,
    UsageError,
)
from qtune.run.display import Quiet
from qtune.run.resume import BEGIN, Wanted
from qtune.run.train import train
from tests.run.made_run import write_rows
from tests.tiny import save_tiny

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from qtune.training import EvalEvent, StepEvent

STEPS = 7
SETTINGS: dict[str, Any] = {
    "model": {"name_or_path": "base"},
    "quantization": {"compute_dtype": "float32"},
    "method": {"name": "lora", "rank": 64, "alpha": 16, "dropout": 0.2},
    "data": {"train": [{"path": "train.jsonl"}], "eval": [{"path": "test.jsonl"}]},
    "optim": {"name": "paged_adamw_8bit", "learning_rate": 5e-3, "lr_scheduler_type": "cosine"},
    "train": {"batch_size": 8, "max_steps": STEPS},
    "memory": {"micro_batch_size": 3},
    "logging": {"steps": 3},
    "eval": {"steps": 3},
    "checkpoint": {"steps": 2, "final": "last"},
}
RESUME = Wanted(required=True)


class Crash(Exception):  # noqa: N818 - no error of anybody's
    """The process is gone."""


class Breaking(Quiet):
    """Does something at one of a run's events."""

    def __init__(self, act: Callable[[], None], *, step: int | None = None, what: str = "") -> None:
        self._act, self._step, self._what = act, step, what
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)

    def step(self, event: StepEvent) -> None:
        if event.step == self._step:
            self._act()

    def evaluation(self, event: EvalEvent) -> None:
        if self._what == "evaluated" and event.step == 3:
            self._act()

    def progress(self, what: str, done: int, total: int) -> None:  # noqa: ARG002
        if what == self._what:
            self._act()


def crash() -> None:
    """As sudden as a kill, seen from the files."""
    raise Crash


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("resume")
    save_tiny(folder / "base")
    write_rows(folder / "train.jsonl", 20)
    write_rows(folder / "test.jsonl", 4, first=100)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(SETTINGS))
    _run(folder, "straight")
    return folder


def _run(
    place: Path, name: str, *overrides: str, wanted: Wanted = BEGIN, display: Any = None
) -> tuple[dict[str, Any], int]:
    output = f"train.output_dir={place / name}"
    return train(
        place / "recipe.yaml",
        overrides=[output, *overrides],
        wanted=wanted,
        display=display or Quiet(),
    )


def _metrics(folder: Path) -> list[Any]:
    timed = ("tokens_per_second",)
    lines = (json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines())
    return [{key: value for key, value in line.items() if key not in timed} for line in lines]


def _equal(place: Path, name: str, *, reference: str = "straight") -> None:
    mine, theirs = place / name, place / reference
    for file in ("adapter/adapter_model.safetensors", "adapter/adapter_config.json"):
        assert (mine / file).read_bytes() == (theirs / file).read_bytes(), file
    last = f"checkpoints/step-{STEPS:06d}/training.safetensors"
    assert (mine / last).read_bytes() == (theirs / last).read_bytes()
    assert _metrics(mine) == _metrics(theirs)
    reports = [json.loads((run / "report.json").read_text()) for run in (mine, theirs)]
    for key in ("steps", "tokens", "supervised_tokens", "loss_first", "loss_last", "evaluations"):
        assert reports[0][key] == reports[1][key], key
    assert reports[0]["best"] == reports[1]["best"]


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
        _run(place, name, display=Breaking(crash, **breaking))
    _, code = _run(place, name, wanted=RESUME)
    assert code == 0
    _equal(place, name)


def test_a_run_that_is_broken_again_and_again_gets_there(place: Path) -> None:
    with pytest.raises(Crash):
        _run(place, "often", "logging.steps=1", display=Breaking(crash, step=3))
    for step in (4, 5, 6):
        with pytest.raises(Crash):
            _run(
                place, "often", "logging.steps=1", wanted=RESUME, display=Breaking(crash, step=step)
            )
    _run(place, "often", "logging.steps=1", wanted=RESUME)
    _run(place, "straight by one", "logging.steps=1")
    _equal(place, "often", reference="straight by one")


def test_a_crash_before_the_first_checkpoint_begins_again(place: Path) -> None:
    with pytest.raises(Crash):
        _run(place, "early", "logging.steps=1", display=Breaking(crash, step=1))
    display = Breaking(crash)
    _run(place, "early", "logging.steps=3", wanted=RESUME, display=display)
    assert any("no whole checkpoint yet" in line for line in display.lines)
    _equal(place, "early")


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
    report, found = _run(place, name, *settings, display=display)
    assert found == code
    assert not (place / name / "adapter").exists()
    assert not (place / name / "report.json").exists()
    assert report["steps"] == 3
    _run(place, name, *settings, wanted=RESUME)
    if settings:
        shutil.rmtree(place / "reference", ignore_errors=True)
        _run(place, "reference", *settings)
    _equal(place, name, reference="reference" if settings else "straight")


def test_usr1_saves_and_goes_on(place: Path) -> None:
    display = Breaking(lambda: os.kill(os.getpid(), signal.SIGUSR1), step=3)
    settings = ("checkpoint.steps=null", "eval.steps=null", "checkpoint.keep=9")
    _, code = _run(place, "usr1", *settings, display=display)
    assert code == 0
    saved = sorted(path.name for path in (place / "usr1" / "checkpoints").iterdir())
    assert saved == ["step-000003", "step-000007"]
    assert "checkpoint of step 3 saved, as USR1 asked" in display.lines


def test_time_is_up_and_the_next_process_goes_on(place: Path) -> None:
    codes = []
    for _ in range(2 * STEPS):
        wanted = RESUME if codes else BEGIN
        _, code = _run(place, "short", "train.max_time=0.001s", wanted=wanted)
        codes.append(code)
        if code == 0:
            break
    assert codes[0] == 75
    assert codes[-1] == 0
    assert len(codes) <= STEPS + 2
    _equal(place, "short")


def test_checkpoints_by_time(place: Path) -> None:
    settings = ("checkpoint.steps=null", "eval.steps=null", "checkpoint.keep=9")
    _run(place, "timed", *settings, "checkpoint.every=0.0001s")
    assert len(list((place / "timed" / "checkpoints").iterdir())) == STEPS


def test_the_newest_few_and_the_best_are_kept(place: Path) -> None:
    _run(place, "kept", "checkpoint.steps=1", "checkpoint.keep=2", "optim.learning_rate=3.0")
    report = json.loads((place / "kept" / "report.json").read_text())
    kept = {path.name for path in (place / "kept" / "checkpoints").iterdir()}
    assert kept == {"step-000006", "step-000007", f"step-{report['best']['step']:06d}"}


def test_a_finished_run_has_nothing_to_do(place: Path) -> None:
    before = (place / "straight" / "log.txt").read_bytes()
    report, code = _run(place, "straight", wanted=RESUME)
    assert (code, report["steps"]) == (0, STEPS)
    assert (place / "straight" / "log.txt").read_bytes() == before


def test_a_longer_run_goes_on_from_a_finished_one(place: Path) -> None:
    constant = ("optim.lr_scheduler_type=constant", "optim.warmup_steps=2")
    shorter, longer = "train.max_steps=4", f"train.max_steps={STEPS}"
    _run(place, "extended", *constant, shorter)
    display = Breaking(crash)
    _, code = _run(place, "extended", *constant, longer, wanted=RESUME, display=display)
    assert code == 0
    assert f"changed: train.max_steps was 4, is {STEPS}" in display.lines
    _run(place, "long", *constant, longer)
    for folder in ("extended", "long"):
        assert (place / folder / "adapter").is_dir()
    left, right = (
        (place / name / "adapter" / "adapter_model.safetensors").read_bytes()
        for name in ("extended", "long")
    )
    assert left == right
    with pytest.raises(UsageError, match="has done 7 steps already, 4 are asked for"):
        _run(place, "extended", *constant, shorter, wanted=RESUME)


def test_without_resume_a_run_is_not_touched(place: Path) -> None:
    with pytest.raises(OutputError, match="holds a run already, finished") as caught:
        _run(place, "straight")
    assert "--resume" in caught.value.faults[0].hint
    with pytest.raises(UsageError, match="no run to go on with"):
        _run(place, "nothing", wanted=RESUME)
    assert not (place / "nothing").exists()


def test_auto_begins_and_goes_on(place: Path) -> None:
    auto = "checkpoint.resume=auto"
    with pytest.raises(Crash):
        _run(place, "auto", auto, display=Breaking(crash, step=6))
    _run(place, "auto", auto)
    _equal(place, "auto")
    _, code = _run(place, "auto", auto)
    assert code == 0


CHANGES = [
    ("optim.learning_rate=1e-4", "optim.learning_rate was 0.005, is 0.0001"),
    ("train.seed=1", "train.seed was 42, is 1"),
    ("quantization.bits=16", "quantization.bits was 4, is 16"),
    ("memory.micro_batch_size=4", "memory.micro_batch_size was 3, is 4"),
    ("method.rank=8", "method.rank was 64, is 8"),
    ("optim.name=adamw", "optim.name was paged_adamw_8bit, is adamw"),
    ("data.train=[{path: other.jsonl}]", "data.train.0.path was train.jsonl, is other.jsonl"),
    ("train.batch_size=4", "train.batch_size was 8, is 4"),
    ("optim.lr_scheduler_type=linear", "optim.lr_scheduler_type was cosine, is linear"),
]


@pytest.fixture(scope="module")
def broken(place: Path) -> Path:
    write_rows(place / "other.jsonl", 20, first=40)
    with pytest.raises(Crash):
        _run(place, "broken", display=Breaking(crash, step=3))
    return place


@pytest.mark.parametrize(("change", "says"), CHANGES)
def test_a_changed_recipe_is_refused_with_old_and_new(
    broken: Path, change: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(broken)
    monkeypatch.setattr("qtune.models.load", lambda *_, **__: pytest.fail("weights were read"))
    with pytest.raises(ResumeError) as caught:
        _run(broken, "broken", change, wanted=RESUME)
    assert int(caught.value.code) == 8
    assert says in str(caught.value)
    assert "--allow-change" in caught.value.faults[-1].hint


def test_several_changes_are_told_together(broken: Path) -> None:
    with pytest.raises(ResumeError) as caught:
        _run(broken, "broken", "train.seed=1", "method.dropout=0.0", wanted=RESUME)
    told = " ".join(fault.message for fault in caught.value.faults)
    assert "method.dropout" in told
    assert "train.seed" in told


def test_an_allowed_change_is_said(broken: Path) -> None:
    shutil.copytree(broken / "broken", broken / "allowed")
    display = Breaking(crash)
    wanted = Wanted(required=True, changes=("optim.learning_rate",))
    _, code = _run(broken, "allowed", "optim.learning_rate=1e-4", wanted=wanted, display=display)
    assert code == 0
    assert "changed: optim.learning_rate was 0.005, is 0.0001" in display.lines
    rates = [
        line["learning_rate"]
        for line in _metrics(broken / "allowed")
        if "loss" in line and line["kind"] == "train"
    ]
    assert rates[-1] < 1e-4


@pytest.mark.parametrize("what", ["rows", "base"])
def test_changed_contents_are_refused(broken: Path, what: str, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(broken, copy)
    if what == "rows":
        lines = (copy / "train.jsonl").read_text().splitlines()
        (copy / "train.jsonl").write_text("\n".join(reversed(lines)) + "\n")
        says = "data.train: the training rows are not those the run began with"
    else:
        shutil.rmtree(copy / "base")
        from tests.tiny import tiny_llama

        save_tiny(copy / "base", tiny_llama(seed=9))
        says = "model: the base model is not the one the run began with"
    with pytest.raises(ResumeError, match=says):
        _run(copy, "broken", wanted=RESUME)


def test_a_damaged_checkpoint_is_skipped_and_named(broken: Path) -> None:
    shutil.copytree(broken / "broken", broken / "damaged")
    with pytest.raises(Crash):
        _run(broken, "damaged", "logging.steps=1", wanted=RESUME, display=Breaking(crash, step=6))
    newest = max((broken / "damaged" / "checkpoints").iterdir())
    file = newest / "training.safetensors"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))
    display = Breaking(crash)
    _run(broken, "damaged", wanted=RESUME, display=display)
    assert any(newest.name in line and "skipped" in line for line in display.lines)
    mine = (broken / "damaged" / "adapter" / "adapter_model.safetensors").read_bytes()
    assert mine == (broken / "straight" / "adapter" / "adapter_model.safetensors").read_bytes()


def test_where_every_checkpoint_is_damaged_nothing_begins_again(broken: Path) -> None:
    shutil.copytree(broken / "broken", broken / "all damaged")
    files = sorted((broken / "all damaged").glob("checkpoints/*/state.json"))
    for file in files:
        file.write_text(file.read_text() + " ")
    for wanted, setting in ((RESUME, "never"), (BEGIN, "auto")):
        with pytest.raises(ModelError, match=r"checkpoints/step-\d+: state.json has") as caught:
            _run(broken, "all damaged", f"checkpoint.resume={setting}", wanted=wanted)
        assert len(caught.value.faults) == len(files)
        assert "to begin again remove" in caught.value.faults[-1].hint
    shutil.rmtree(broken / "all damaged" / "checkpoints")
    assert _run(broken, "all damaged", wanted=RESUME)[1] == 0
    _equal(broken, "all damaged")


def test_a_diverged_run_keeps_its_checkpoint_and_names_the_rows(place: Path) -> None:
    with pytest.raises(DivergedError):
        _run(place, "limit", "logging.steps=1", "watchdog.loss_limit=0.5", "watchdog.patience=3")
    said = json.loads((place / "limit" / "diverged.json").read_text())
    assert len(said["rows"]) == 4  # the third step is the smaller last one of the first epoch
    assert all(row.startswith("train.jsonl:") for row in said["rows"])
    assert sorted(p.name for p in (place / "limit" / "checkpoints").iterdir()) == ["step-000002"]
    assert "error: " in (place / "limit" / "log.txt").read_text()


def test_the_watchdogs_patience_outlives_a_crash(place: Path) -> None:
    settings = ("watchdog.loss_limit=0.5", "watchdog.patience=5", "checkpoint.steps=1")
    with pytest.raises(DivergedError, match="step 5: "):
        _run(place, "patient", *settings)
    with pytest.raises(Crash):
        _run(
            place,
            "patient again",
            *settings,
            "logging.steps=1",
            display=Breaking(crash, step=4),
        )
    with pytest.raises(DivergedError, match="step 5: "):
        _run(place, "patient again", *settings, wanted=RESUME)


def test_weights_thrown_to_where_no_gradient_is_end_the_run(place: Path) -> None:
    with pytest.raises(
        DivergedError, match=r"the gradient is exactly zero|no update was made"
    ) as caught:
        _run(place, "thrown", "optim.learning_rate=1e6", "eval.steps=null")
    assert "lower optim.learning_rate" in caught.value.faults[0].hint
    assert not (place / "thrown" / "adapter").exists()


def test_a_doubtful_run_says_so(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qtune.run.doubts._WORSE", -9.0)
    display = Breaking(crash)
    report, code = _run(place, "worse", "train.max_steps=1", display=display)
    assert code == 0
    assert any(line.startswith("warning: the adapter's held-out loss") for line in display.lines)
    assert len(report["doubts"]) == 1
    said = (place / "worse" / "summary.md").read_text()
    assert "**warning:** the adapter's held-out loss" in said
    assert json.loads((place / "straight" / "report.json").read_text())["doubts"] == []


def test_every_error_of_resuming_is_ours(broken: Path) -> None:
    shutil.copytree(broken / "broken", broken / "odd")
    for path in (broken / "odd" / "checkpoints").iterdir():
        shutil.rmtree(path)
    (broken / "odd" / "report.json").write_text("{")
    with pytest.raises(QtuneError, match=r"report\.json"):
        _run(broken, "odd", wanted=RESUME)


@pytest.mark.parametrize("name", ["paged_adamw_32bit", "adamw"])
def test_a_checkpoint_is_as_large_as_planned(place: Path, name: str) -> None:
    _run(place, f"size {name}", f"optim.name={name}", "train.max_steps=1")
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
        _run(place, "full")
    assert int(caught.value.code) == 5
    assert not (place / "full").exists()
