"""The processes of a run: signals reach each of them once, and none is left behind."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from qtune import parent
from qtune.errors import ExitCode
from qtune.run.launching.crew import Graces, Outcome, launch

WORKER = str(Path(__file__).with_name("worker.py"))
SHORT = Graces(own_end=0.3, after_first=0.3, after_fault=0.6, after_term=0.3, after_second=0.3)
CODES = {signal.SIGHUP: 129, signal.SIGINT: 130, signal.SIGTERM: 143}
TAKEN = (*CODES, signal.SIGUSR1, signal.SIGTSTP, signal.SIGCHLD)
PARENT = """
import sys
from qtune.run.launching.crew import launch
sys.exit(launch([sys.executable, *sys.argv[1:]], len(sys.argv) - 3, say=print).code)
"""


def run(folder: Path, *words: str, lines: list[str] | None = None) -> Outcome:
    said: list[str] = [] if lines is None else lines
    command = [sys.executable, WORKER, str(folder), *words]
    before = [signal.getsignal(number) for number in TAKEN]
    outcome = launch(command, len(words), say=said.append, graces=SHORT)
    assert [signal.getsignal(number) for number in TAKEN] == before
    with pytest.raises(ChildProcessError):  # no child, dead or alive
        os.waitpid(-1, os.WNOHANG)
    return outcome


def signals(folder: Path, rank: int) -> list[int]:
    return [int(line) for line in (folder / f"signals {rank}").read_text().split()]


def is_alive(pid: int) -> bool:
    """Whether a process is there, and not only for its parent to notice."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.parametrize("number", CODES, ids=lambda number: number.name)
def test_a_signal_reaches_each_once_and_the_slowest_may_save(
    tmp_path: Path, number: signal.Signals
) -> None:
    # the others are done at once; longer than any grace, the first one still saves
    outcome = run(tmp_path, "save:0.7", "save:0", f"tell:{number}")
    assert (outcome.code, outcome.fault) == (CODES[number], None)
    for rank in range(3):
        assert signals(tmp_path, rank) == [number]
        assert (tmp_path / f"saved {rank}").exists()


def test_an_echo_is_no_second_signal(tmp_path: Path) -> None:
    assert run(tmp_path, "save:0.6", "tell:15/0.05,15/0").code == 143
    assert signals(tmp_path, 0) == [15]
    assert (tmp_path / "saved 0").exists()


def test_a_second_signal_ends_all_whatever_they_do(tmp_path: Path) -> None:
    outcome = run(tmp_path, "tell:15/0.35,2/60", "save:60", "deaf")
    assert outcome == Outcome(130, None, first_spoke=False)
    assert signals(tmp_path, 1) == [15, 2]
    assert not (tmp_path / "saved 1").exists()


def test_usr1_reaches_each_and_all_go_on(tmp_path: Path) -> None:
    assert run(tmp_path, "save:0", "tell:10/0.2,15").code == 143
    assert signals(tmp_path, 0) == signals(tmp_path, 1) == [10, 15]


def test_usr1_ends_none_that_does_not_listen_yet(tmp_path: Path) -> None:
    outcome = run(tmp_path, "tell:10/0.2,15/0", "early:0.4")
    assert outcome.code == 143
    assert signals(tmp_path, 0) == [10, 15]


def test_one_that_is_stopped_before_it_listens_ends_as_one_that_was_asked(tmp_path: Path) -> None:
    outcome = run(tmp_path, "tell:15", "early:60")
    assert (outcome.code, outcome.fault) == (143, None)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_one_that_is_killed_takes_all_with_it(tmp_path: Path) -> None:
    outcome = run(tmp_path, "save:60", "die:9", "deaf")
    assert outcome.code == ExitCode.RESOURCES
    assert outcome.fault is not None
    assert "rank 1" in outcome.fault.message
    assert "SIGKILL" in outcome.fault.message
    assert "--resume" in outcome.fault.hint
    assert signals(tmp_path, 0) == [signal.SIGTERM]
    assert not is_alive(int((tmp_path / "grandchild").read_text()))


def test_one_that_hangs_after_its_fault_is_ended_with_all(tmp_path: Path) -> None:
    outcome = run(tmp_path, "deaf", "fault:hangs")
    assert outcome.code == ExitCode.RESOURCES
    assert str(outcome.fault) == "rows.jsonl:3: rank 1: hangs"


def test_the_first_one_may_say_who_was_killed(tmp_path: Path) -> None:
    outcome = run(tmp_path, "read", "die:9")
    assert outcome == Outcome(5, None, first_spoke=True)
    assert "rank 1 was killed by SIGKILL" in (tmp_path / "read").read_text()


def test_the_others_have_time_to_tell_why_one_ended(tmp_path: Path) -> None:
    outcome = run(tmp_path, "exit:3/0.2", "exit:3", "exit:5")
    assert outcome == Outcome(3, None, first_spoke=True)


@pytest.mark.parametrize("busy", ["deaf", "save:0"])
def test_a_fault_is_told_though_the_first_one_is_busy(tmp_path: Path, busy: str) -> None:
    outcome = run(tmp_path, busy, "fault:no row")
    assert outcome.code == ExitCode.DATA
    assert str(outcome.fault) == "rows.jsonl:3: rank 1: no row"
    assert outcome.first_spoke is (busy != "deaf")


def test_nobody_waits_for_those_who_outlive_the_first_one(tmp_path: Path) -> None:
    assert run(tmp_path, "exit:9", "deaf").code == 9


def test_the_lines_of_others_carry_their_rank(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    lines: list[str] = []
    assert run(tmp_path, "say", "say", lines=lines).code == 0
    assert lines == ["rank 1: first line", "rank 1: second"]
    assert capfd.readouterr() == ("of no interest\n", "first line\nsecond")


def test_each_knows_its_seat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert run(tmp_path, "environment", "environment").code == 0
    for rank in range(2):
        found = ast.literal_eval((tmp_path / f"environment {rank}").read_text())
        expected = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
        assert {name: int(found[name]) for name in expected} == expected
        assert found["MASTER_ADDR"] == "127.0.0.1"
        assert found["OMP_NUM_THREADS"] == "3"
        assert parent.NAME not in found  # it was taken


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone tells of a parent's end")
def test_none_outlives_a_parent_that_is_killed(tmp_path: Path) -> None:
    words = [sys.executable, "-c", PARENT, WORKER, str(tmp_path), "save:0", "save:0"]
    with subprocess.Popen(words) as process:
        wait_for(tmp_path / "listens 0", tmp_path / "listens 1")
        process.kill()
    wait_for(tmp_path / "saved 0", tmp_path / "saved 1")
    assert signals(tmp_path, 0) == signals(tmp_path, 1) == [signal.SIGTERM]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_ctrl_z_pauses_all_of_them(tmp_path: Path) -> None:
    words = [sys.executable, "-c", PARENT, WORKER, str(tmp_path), "save:0", "save:0"]
    with subprocess.Popen(words) as process:
        wait_for(tmp_path / "listens 0", tmp_path / "listens 1")
        process.send_signal(signal.SIGTSTP)
        os.waitpid(process.pid, os.WUNTRACED)
        time.sleep(0.05)
        assert states_of_children(process.pid) == ["T", "T"]
        process.send_signal(signal.SIGCONT)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 143


def states_of_children(pid: int) -> list[str]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [
        Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] for child in children
    ]


def wait_for(*files: Path) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end and not all(file.exists() for file in files):
        time.sleep(0.01)
    assert all(file.exists() for file in files)
