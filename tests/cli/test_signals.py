"""INT, TERM and HUP in every phase of the work: the right exit code, nothing half done."""

from __future__ import annotations

import os
import pkgutil
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from qtune.cli.app import run_app
from tests.run.made_run import write_rows
from tests.tiny import save_tiny

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CODES = {signal.SIGHUP: 129, signal.SIGINT: 130, signal.SIGTERM: 143}
STEPS = 4
SETTINGS: dict[str, Any] = {
    "model": {"name_or_path": "base"},
    "quantization": {"compute_dtype": "float32"},
    "method": {"name": "lora", "rank": 4, "alpha": 8, "dropout": 0.1},
    "data": {"train": [{"path": "train.jsonl"}], "eval": [{"path": "test.jsonl"}]},
    "optim": {"name": "adamw_8bit", "learning_rate": 1e-2},
    "train": {"batch_size": 8, "max_steps": STEPS},
    "eval": {"steps": 2},
    "checkpoint": {"resume": "auto"},
}
# where the signal comes: a function of the package, and whether a run folder is there by then
BEFORE_THE_FOLDER = ["qtune.plan.make", "qtune.data.prepare", "qtune.models.load"]
IN_THE_RUN = [
    "qtune.training.step.accumulate",
    "qtune.evaluation.evaluate",
    "qtune.methods.save",
    "qtune.runs.RunFolder.publish",
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("signals")
    save_tiny(folder / "base")
    write_rows(folder / "train.jsonl", 24)
    write_rows(folder / "test.jsonl", 4, first=100)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(SETTINGS))
    assert _train(folder, "straight") == 0
    return folder


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    """The handlers of pytest come back: the command line sets its own for good."""
    numbers = [*CODES, signal.SIGUSR1]
    former = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, former, strict=True):
        signal.signal(number, handler)


def _train(folder: Path, name: str) -> int:
    return run_app(["train", str(folder / "recipe.yaml"), "-o", str(folder / name), "--quiet"])


def _signal_at(
    monkeypatch: pytest.MonkeyPatch, where: str, number: signal.Signals, *, call: int = 1
) -> None:
    """Send a signal in a call of a function."""
    owner, _, name = where.rpartition(".")
    module: Any = pkgutil.resolve_name(owner)
    original = getattr(module, name)
    calls = []

    def signalled(*arguments: Any, **keywords: Any) -> Any:
        calls.append(1)
        if len(calls) == call:
            os.kill(os.getpid(), number)
            time.sleep(0)  # the handler runs in the main thread, between two instructions
        return original(*arguments, **keywords)

    monkeypatch.setattr(module, name, signalled)


def _adapter(folder: Path) -> bytes:
    return (folder / "adapter" / "adapter_model.safetensors").read_bytes()


@pytest.mark.parametrize("where", BEFORE_THE_FOLDER)
@pytest.mark.parametrize("number", CODES, ids=lambda number: number.name)
def test_before_anything_is_learnt_there_is_no_folder(
    place: Path,
    number: signal.Signals,
    where: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    _signal_at(monkeypatch, where, number)
    assert _train(place, "none") == CODES[number]
    assert not (place / "none").exists()
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("where", IN_THE_RUN)
@pytest.mark.parametrize("number", CODES, ids=lambda number: number.name)
def test_a_run_goes_on_to_the_same_end(
    place: Path,
    number: signal.Signals,
    where: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    name = f"{where} {number.name}"
    with monkeypatch.context() as patch:
        _signal_at(patch, where, number, call=2 if where.endswith(("te", "ve")) else 1)
        assert _train(place, name) == CODES[number]
    assert "Traceback" not in capfd.readouterr().err
    assert not (place / name / "adapter").exists()
    assert not (place / name / "report.json").exists()
    assert not (place / name / ".lock").exists()
    assert _train(place, name) == 0
    assert _adapter(place / name) == _adapter(place / "straight")


@pytest.mark.parametrize("where", [BEFORE_THE_FOLDER[0], IN_THE_RUN[0]])
def test_what_nohup_has_ignored_stays_ignored(
    place: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    _signal_at(monkeypatch, where, signal.SIGHUP)
    assert _train(place, f"nohup {where}") == 0
    assert _adapter(place / f"nohup {where}") == _adapter(place / "straight")


@pytest.mark.parametrize("where", ["folding.Folding.blocks", "fidelity.compare"])
@pytest.mark.parametrize("number", CODES, ids=lambda number: number.name)
def test_a_merge_leaves_nothing_half_written(
    place: Path, number: signal.Signals, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = place / f"merged {number.name}"
    with monkeypatch.context() as patch:
        _signal_at(patch, f"qtune.merging.{where}", number)
        code = run_app(["merge", str(place / "straight"), "-o", str(target), "--quiet"])
    assert code == CODES[number]
    assert not target.exists()
    assert run_app(["merge", str(place / "straight"), "-o", str(target), "--quiet"]) == 0
    assert [path.name for path in place.iterdir() if "merged" in path.name] == [target.name]
    shutil.rmtree(target)


SLOW = """
import os, signal, sys, time
import qtune.training.step as step
from qtune.cli.app import run_app
plain = step.accumulate
def slow(*arguments):
    sys.stderr.write("in a step\\n")
    time.sleep(60)
    return plain(*arguments)
step.accumulate = slow
sys.exit(run_app(sys.argv[1:]))
"""


def test_a_second_signal_ends_a_process_at_once_and_leaves_no_child(place: Path) -> None:
    arguments = ["train", str(place / "recipe.yaml"), "-o", str(place / "twice")]
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, *arguments],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "in a step" in line:
            break
    process.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=0.5)  # the first waits for the end of the step
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == -signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
    process.stderr.close()
