"""The one place where errors become exit codes."""

from __future__ import annotations

import errno
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from qtune import __version__
from qtune.cli import app
from qtune.errors import CheckError, DataError, Fault


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """Give pytest its handlers back."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def _run_failing(monkeypatch: pytest.MonkeyPatch, fault: Any, *arguments: str) -> int:
    def fail(**_: Any) -> None:
        if isinstance(fault, signal.Signals):
            signal.raise_signal(fault)
        raise fault

    monkeypatch.setattr(app, "app", fail)
    return app.run_app([*arguments])


class OutOfMemoryError(RuntimeError):
    """Named as torch's own."""


@pytest.mark.parametrize(
    ("fault", "code", "says"),
    [
        (DataError("no rows", place="a.jsonl:1", hint="add some"), 3, "a.jsonl:1: no rows (add"),
        (CheckError("differs"), 9, "differs"),
        (OSError(errno.ENOSPC, "full", "run/x"), 5, "run/x: cannot write: no space left"),
        (OSError(errno.EROFS, "locked", "run/x"), 5, "run/x: cannot write: read-only"),
        (OutOfMemoryError("CUDA out of memory. Tried to"), 5, "CUDA out of memory (halve"),
        (MemoryError(), 5, "out of memory"),
        (signal.SIGINT, 130, "stopped"),
        (signal.SIGTERM, 143, "stopped"),
        (signal.SIGHUP, 129, "stopped"),
    ],
)
def test_a_fault_is_a_line_and_a_code(
    fault: Any,
    code: int,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert _run_failing(monkeypatch, fault) == code
    said = capfd.readouterr().err
    assert says in said
    assert "Traceback" not in said


def test_several_faults_are_several_lines(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    faults = [Fault(message="one", place="a:1"), Fault(message="[two]", place="a:2")]
    assert _run_failing(monkeypatch, DataError.of(faults)) == 3
    assert capfd.readouterr().err.splitlines() == ["error: a:1: one", "error: a:2: [two]"]


@pytest.mark.parametrize(
    ("fault", "code", "kind"),
    [
        (DataError("no rows", place="a.jsonl:1", hint="add some"), 3, "data"),
        (CheckError("differs"), 9, "check_failed"),
        (OSError(errno.ENOSPC, "full", "run/x"), 5, "resources"),
        (ZeroDivisionError("of ours"), 1, "bug"),
        (signal.SIGTERM, 143, "terminated"),
    ],
)
def test_under_json_a_fault_is_one_object(
    fault: Any,
    code: int,
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert _run_failing(monkeypatch, fault, "--json") == code
    said = capfd.readouterr()
    told = json.loads(said.out)
    assert (told["exit_code"], told["error"]["kind"]) == (code, kind)
    assert all(one["message"] for one in told["error"]["faults"])
    assert said.err  # people are told all the same
    if kind == "data":
        assert told["error"]["faults"] == [
            {"message": "no rows", "place": "a.jsonl:1", "hint": "add some"}
        ]


def test_under_json_a_faulty_command_line_is_one_object(capfd: pytest.CaptureFixture[str]) -> None:
    assert app.run_app(["plan", "--json", "--nope"]) == 2
    said = capfd.readouterr()
    assert "--nope" in json.loads(said.out)["error"]["faults"][0]["message"]
    assert "--nope" in said.err


def test_a_plan_that_does_not_fit_is_still_the_answer(capfd: pytest.CaptureFixture[str]) -> None:
    assert app.run_app(["plan", "quickstart", "--gpu", "1MB", "--json"]) == 5
    said = capfd.readouterr()
    assert json.loads(said.out)["recipe"] == "quickstart"
    assert said.err.startswith("error: ")


def test_a_bug_shows_its_traceback(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert _run_failing(monkeypatch, ZeroDivisionError("of ours")) == 1
    said = capfd.readouterr().err
    assert "Traceback" in said
    assert "a bug in qtune" in said


def test_version_and_usage(capfd: pytest.CaptureFixture[str]) -> None:
    assert app.run_app(["--version"]) == 0
    assert capfd.readouterr().out == f"qtune {__version__}\n"
    assert app.run_app(["tarin"]) == 2
    assert "train" in capfd.readouterr().err
    assert app.run_app(["train", "quickstart", "--max-steps", "0"]) == 2


@pytest.mark.parametrize(
    "verb",
    [
        *(
            "train",
            "eval",
            "merge",
            "export",
            "push",
            "generate",
            "chat",
            "plan",
            "validate",
            "show",
            "schema",
        ),
        *("data preview", "data stats", "data check"),
        *("runs list", "runs show", "runs diff"),
    ],
)
def test_every_verb_has_help_with_an_example(verb: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert app.run_app([*verb.split(), "--help"]) == 0
    assert f"qtune {verb}" in capfd.readouterr().out


@pytest.mark.parametrize("verb", ["train", "sweep", "compare", "merge"])
def test_help_fills_the_width_of_the_terminal(
    verb: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", 80)
    assert app.run_app([verb, "--help"]) == 0
    told, _, examples = capfd.readouterr().out.partition("Examples:")
    lines = [line.strip() for line in told.splitlines()]
    for line, after in itertools.pairwise(lines):
        assert not (line and after) or len(f"{line} {after.split()[0]}") > 78
    assert all(line.startswith("   qtune ") for line in examples.split("╭")[0].splitlines()[1:-1])


@pytest.mark.parametrize("arguments", [["show"], ["show", "--json"], ["plan"], ["validate"]])
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_reader_who_leaves_is_no_fault(arguments: list[str], stream: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    other = "stderr" if stream == "stdout" else "stdout"
    command = [sys.executable, "-m", "qtune", *arguments, "quickstart"]
    done = subprocess.run(command, check=False, **{stream: writer, other: subprocess.PIPE})
    os.close(writer)
    assert done.returncode == 0
    assert not done.stderr
