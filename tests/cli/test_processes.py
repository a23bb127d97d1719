"""`qtune train --processes`: what is refused at once, and what each process is started with."""

from __future__ import annotations

import inspect
import json
import signal
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from qtune.cli import train_command
from qtune.cli.app import run_app
from qtune.errors import DataError, ExitCode, Fault
from qtune.run.launching import train as launching
from qtune.run.launching.crew import Outcome
from tests.run.made_run import write_rows
from tests.tiny import save_tiny

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    numbers = [signal.SIGHUP, signal.SIGINT, signal.SIGTERM]
    former = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, former, strict=True):
        signal.signal(number, handler)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was started; nothing really is."""
    found: list[Any] = []

    def launch(command: list[str], size: int, **_: Any) -> Outcome:
        found.append((command, size))
        return Outcome(0, None, first_spoke=True)

    monkeypatch.setattr(launching, "launch", launch)
    monkeypatch.setattr(launching, "gpus", list)
    return found


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    settings = {"model": {"name_or_path": "base"}, "data": {"train": [{"path": "rows.jsonl"}]}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(settings))
    return str(tmp_path / "recipe.yaml")


def test_each_gets_the_command_line_without_the_number(recipe: str, started: list[Any]) -> None:
    words = ["--set", "optim.learning_rate=1e-3", "-o", "runs/a b", "--max-steps", "3", "--resume"]
    words += ["--allow-change", "train.max_steps", "--json", "-q", "--processes", "2"]
    assert run_app(["train", recipe, *words]) == 0
    [(command, size)] = started
    assert size == 2
    assert command[1:4] == ["-m", "qtune", "train"]
    assert command[4:] == [
        *("--set", "optim.learning_rate=1e-3"),
        *("--set", 'train.output_dir="runs/a b"'),
        *("--set", "train.max_steps=3"),
        *("--resume", "--json", "--quiet", "--allow-change", "train.max_steps"),
        *("--", recipe),
    ]
    # a new option of the verb must be thought of here as well
    asked = {"recipe", "overrides", "output", "max_steps", "resume", "allow_change", "processes"}
    asked |= {"as_json", "quiet", "dry_run", "deep"}  # the last two start no process
    assert asked == set(inspect.signature(train_command.train).parameters)


def test_a_faulty_recipe_is_told_once(
    recipe: str, started: list[Any], capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_app(["train", recipe, "--set", "train.batch=2", "--processes", "2"]) == 2
    assert capfd.readouterr().err.count("unknown key") == 1
    assert started == []


@pytest.mark.parametrize("asked", ["0", "-1", "two", "1.5", ""])
def test_it_takes_a_number(
    recipe: str, started: list[Any], asked: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_app(["train", recipe, f"--processes={asked}"]) == 2
    assert "no number of processes" in capfd.readouterr().err
    assert started == []


def test_it_belongs_to_no_process_that_torchrun_started(
    recipe: str,
    started: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert run_app(["train", recipe, "--processes", "2"]) == 2
    assert "torchrun" in capfd.readouterr().err
    assert started == []


def test_a_gpu_each(
    recipe: str,
    started: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(launching, "gpus", lambda: ["0", "3"])
    assert run_app(["train", recipe, "--processes", "3"]) == ExitCode.RESOURCES
    assert "3 processes, and 2 visible GPUs" in capfd.readouterr().err
    assert started == []
    assert run_app(["train", recipe, "--processes", "auto"]) == 0
    assert [size for _, size in started] == [2]


def test_more_than_the_cores_of_a_cpu_are_doubted_and_started(
    recipe: str,
    started: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(launching, "cores", lambda: 2)
    assert run_app(["train", recipe, "--processes", "3"]) == 0
    assert "warning: 3 processes share 2 cores" in capfd.readouterr().err
    assert len(started) == 1


@pytest.mark.parametrize("first_spoke", [True, False])
def test_the_fault_of_one_that_was_killed_is_one_line_and_one_object(
    recipe: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    first_spoke: bool,
) -> None:
    fault = Fault(message="rank 1 was killed by SIGKILL", hint="go on with --resume")
    outcome = Outcome(5, fault, first_spoke)
    monkeypatch.setattr(launching, "launch", lambda *_, **__: outcome)
    monkeypatch.setattr(launching, "gpus", list)
    assert run_app(["train", recipe, "--processes", "2", "--json"]) == 5
    said = capfd.readouterr()
    assert said.err == "error: rank 1 was killed by SIGKILL (go on with --resume)\n"
    # the object of a run is that of its first process, unless it could not tell
    assert ("SIGKILL" in said.out) is not first_spoke


def test_a_process_is_silent_only_of_what_the_first_one_says(
    recipe: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    assert run_app(["train", recipe]) == ExitCode.USAGE  # the first one does not know of it
    assert "MASTER_ADDR" in capfd.readouterr().err
    error = DataError("no rows")
    error.said_elsewhere = True

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(train_command, "_run", fail)
    assert run_app(["train", recipe]) == ExitCode.DATA
    assert capfd.readouterr().err == ""


def test_a_dry_run_plans_for_all_of_them(
    tmp_path: Path, started: list[Any], capfd: pytest.CaptureFixture[str]
) -> None:
    save_tiny(tmp_path / "base")
    write_rows(tmp_path / "train.jsonl", 8)
    settings = {"model": {"name_or_path": "base"}, "data": {"train": [{"path": "train.jsonl"}]}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(settings))
    words = ["train", str(tmp_path / "recipe.yaml"), "--dry-run", "--processes", "2"]
    assert run_app([*words, "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["plan"]["processes"] == 2
    assert run_app([*words, "--deep"]) == ExitCode.USAGE
    assert started == []
