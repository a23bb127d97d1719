"""A process that works for another one ends with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from qtune import parent

CHILD = """
import signal, sys, time
from pathlib import Path
from qtune.parent import end_with_parent
def end(number, _):
    Path(sys.argv[1]).write_text(f"ended by {number}")
    sys.exit(1)
signal.signal(signal.SIGTERM, end)
end_with_parent()
Path(sys.argv[1]).write_text("works")
time.sleep(90)
"""
PARENT = """
import sys, time
from pathlib import Path
from qtune.run.comparison.children import Crew
with Crew() as crew:
    crew.start([sys.executable, "-c", *sys.argv[1:]], Path(sys.argv[2] + ".log"))
    time.sleep(90)
"""


def wait_for(file: Path, text: str) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end and (not file.exists() or file.read_text() != text):
        time.sleep(0.02)
    assert file.read_text() == text


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone tells of a parent's end")
def test_it_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    file = tmp_path / "said"
    with subprocess.Popen([sys.executable, "-c", PARENT, CHILD, str(file)]) as process:
        wait_for(file, "works")
        process.kill()
    wait_for(file, f"ended by {int(signal.SIGTERM)}")


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone tells of a parent's end")
def test_it_ends_when_its_parent_was_gone_already(tmp_path: Path) -> None:
    file = tmp_path / "said"
    environment = os.environ | {parent.NAME: "1234567"}
    done = subprocess.run([sys.executable, "-c", CHILD, str(file)], env=environment)
    assert done.returncode == 1
    assert file.read_text() == f"ended by {int(signal.SIGTERM)}"


def test_a_process_of_nobody_takes_no_notice() -> None:
    assert parent.NAME not in os.environ
    parent.end_with_parent()
