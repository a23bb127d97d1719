"""Streams that the caller has closed: no fault, and no file gets what is said there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

OPENED = """
import os, sys
from pathlib import Path
import qtune.cli.app
from qtune.__main__ import main
def record():
    with open(sys.argv[1], "w") as stream:
        os.system("echo from a child; echo from a child >&2")
        stream.write(str(stream.fileno()))
        print("said")
    sys.exit(0)
qtune.cli.app.main = record
main()
"""


@pytest.mark.parametrize("closed", [[1], [2], [0, 1], [0, 1, 2]], ids=str)
def test_no_file_gets_the_number_of_a_closed_stream(closed: list[int], tmp_path: Path) -> None:
    target = tmp_path / "file"
    command = [sys.executable, "-c", OPENED, str(target)]
    done = subprocess.run(command, preexec_fn=lambda: [os.close(number) for number in closed])
    assert done.returncode == 0
    assert int(target.read_text()) > 2


def test_names_that_are_no_text_are_told_all_the_same(tmp_path: Path) -> None:
    recipe = os.fsencode(tmp_path) + b"/odd-\xff-\xc3\xa9.yaml"
    with open(recipe, "w") as stream:  # noqa: PTH123 - a name in bytes
        stream.write("model: {name_or_path: x}\n")
    for locale in ({}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}):
        done = subprocess.run(
            [sys.executable, "-m", "qtune", "validate", recipe],
            capture_output=True,
            env=os.environ | locale,
        )
        assert done.returncode == 2
        assert b"data: missing" in done.stderr
        assert b"Traceback" not in done.stderr


def test_a_command_whose_result_nobody_takes_is_done() -> None:
    command = [sys.executable, "-m", "qtune", "schema"]
    done = subprocess.run(
        command, stderr=subprocess.PIPE, text=True, preexec_fn=lambda: os.close(1)
    )
    assert (done.returncode, done.stderr) == (0, "")
