from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import pytest

from qtune.cli.app import run_app
from tests.run.starting.test_start import SMALL

FLAGS = ["--model", "./small", "--data", "rows.jsonl", "--gpu", "24GB"]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    Path("small").mkdir()
    Path("small/config.json").write_text(json.dumps(SMALL))
    Path("rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n' * 50)


def test_flags_are_enough(capfd: pytest.CaptureFixture[str]) -> None:
    assert run_app(["init", *FLAGS]) == 0
    said = capfd.readouterr()
    assert said.out == ""
    assert "50 rows, read as prompt-completion" in said.err
    assert "fits: " in said.err
    assert "qtune train recipe.yaml" in said.err
    assert run_app(["validate", "recipe.yaml"]) == 0
    assert run_app(["init", *FLAGS]) == 7


@pytest.mark.parametrize("missing", ["--model", "--data"])
def test_without_a_terminal_nothing_is_asked(
    missing: str, capfd: pytest.CaptureFixture[str]
) -> None:
    at = FLAGS.index(missing)
    assert run_app(["init", *FLAGS[:at], *FLAGS[at + 2 :]]) == 2
    assert f"{missing} is missing" in capfd.readouterr().err
    assert not Path("recipe.yaml").exists()


def test_json(capfd: pytest.CaptureFixture[str]) -> None:
    assert run_app(["init", *FLAGS, "-o", "new/first.yaml", "--json"]) == 0
    told = json.loads(capfd.readouterr().out)
    assert told["fits"] is True
    assert (told["format"], told["rows"]) == ("prompt-completion", 50)
    assert Path("new/first.yaml").read_text() == told["yaml"]
    assert "path: ../rows.jsonl" in told["yaml"]


def test_no_torch_is_imported() -> None:
    code = f"import sys; from qtune.cli.app import run_app; code = run_app(['init', *{FLAGS!r}]); "
    code += "sys.exit(code or int('torch' in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


def ask(lines: list[str]) -> tuple[int, str]:
    """Exit code and screen of a session at a terminal; each line is typed after a question."""
    main, child = pty.openpty()
    command = [sys.executable, "-m", "qtune", "init"]
    with subprocess.Popen(command, stdin=child, stdout=child, stderr=child) as process:
        os.close(child)
        screen, left, end = "", list(lines), time.monotonic() + 60
        while time.monotonic() < end:
            try:
                screen += os.read(main, 4096).decode()
            except OSError:  # the other end is closed
                break
            asked = screen.count("]: ") + screen.count("): ")
            if left and asked > len(lines) - len(left):
                os.write(main, left.pop(0).encode())
        code = process.wait(timeout=60)
    os.close(main)
    return code, screen


def test_a_person_is_asked_until_it_can_be_done() -> None:
    code, screen = ask(["./nowhere\n", "./small\n", "no.jsonl\n", "rows.jsonl\n", "24GB\n"])
    assert code == 0, screen
    assert "no such folder" in screen
    assert "no such file" in screen
    assert "50 rows, read as prompt-completion" in screen
    assert Path("recipe.yaml").is_file()
    assert run_app(["validate", "recipe.yaml"]) == 0


def test_leaving_writes_nothing() -> None:
    code, screen = ask(["\x04"])
    assert code == 2
    assert "nothing was written" in screen
    assert not Path("recipe.yaml").exists()
