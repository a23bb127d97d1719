"""A signal before there is anything to save: one line, its exit code, and no traceback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from qtune.cli.app import run_app
from qtune.cli.stopping import Signalled, Stopping

CODES = {signal.SIGHUP: 129, signal.SIGINT: 130, signal.SIGTERM: 143}

# the command line is being imported when the signal comes
EARLY = """
import os, sys
class Finder:
    def find_spec(self, name, *_):
        if name == "qtune.cli.app":
            os.kill(os.getpid(), int(sys.argv[1]))
sys.meta_path.insert(0, Finder())
from qtune.__main__ import main
main()
"""
# a library that drops what is raised inside it, and then says something else
HASTY = """
import os, signal, time
try:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.1)
except BaseException:
    raise ImportError("half imported")
whole = True
"""


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    numbers = [*CODES, signal.SIGALRM]
    former = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, former, strict=True):
        signal.signal(number, handler)


@pytest.mark.parametrize("number", CODES, ids=lambda number: number.name)
def test_while_the_command_line_is_imported(number: signal.Signals) -> None:
    command = [sys.executable, "-c", EARLY, str(int(number))]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (CODES[number], "stopped\n")
    told = json.loads(done.stdout)
    assert told["exit_code"] == CODES[number]
    assert told["error"]["faults"] == [{"message": "stopped", "place": "", "hint": ""}]
    assert subprocess.run(command, capture_output=True).stdout == b""


def test_the_object_is_that_of_any_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", EARLY, "15", "--json"], capture_output=True, text=True
    )
    _signal_in_schema(monkeypatch)
    assert run_app(["schema", "--json"]) == 143
    assert json.loads(capsys.readouterr().out) == json.loads(done.stdout)


def _signal_in_schema(monkeypatch: pytest.MonkeyPatch, *, translated: bool = False) -> None:
    def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        except BaseException as error:
            if translated:
                raise RuntimeError("something is wrong") from error
            raise

    monkeypatch.setattr("qtune.cli.app.app", lambda **_: work())


def test_what_a_library_makes_of_it_is_still_the_signal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _signal_in_schema(monkeypatch, translated=True)
    assert run_app(["schema"]) == 143
    assert capsys.readouterr().err == "stopped\n"


def _import_and_wait(name: str) -> None:
    import_module(name)
    time.sleep(5)


def test_an_import_comes_to_its_end_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hasty_library.py").write_text(HASTY)
    monkeypatch.syspath_prepend(tmp_path)
    Stopping().listen()
    with pytest.raises(Signalled) as caught:
        _import_and_wait("hasty_library")
    assert caught.value.code == 143
    assert sys.modules.pop("hasty_library").whole


@pytest.mark.parametrize(("pause", "code"), [(0.3, -signal.SIGINT), (0.0, 7)])
def test_a_second_signal_ends_the_process_at_once_an_echo_does_not(pause: float, code: int) -> None:
    program = (
        "import os, signal, sys, time\n"
        "from qtune.cli.stopping import Signalled, Stopping\n"
        "Stopping().listen()\n"
        "try:\n    os.kill(os.getpid(), signal.SIGINT)\n    time.sleep(5)\n"
        f"except Signalled:\n    time.sleep({pause})\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n    sys.exit(7)\n"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == code
