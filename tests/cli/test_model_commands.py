"""The verbs eval, merge, generate and chat as a person calls them: streams and exit codes."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

import pytest

from qtune.cli.app import run_app
from tests.run.made_run import make_run

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("made"))


def test_eval(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["eval", str(run), "--rows", "3", "--generate", "2", "--max-new-tokens", "3"]
    assert run_app(arguments) == 0
    shown = capsys.readouterr()
    for word in ("adapter", "base (base)", "difference", "perplexity", "exact match", "stopped"):
        assert word in shown.out
    assert "written to" in shown.err
    assert run_app([*arguments, "--json", "-q"]) == 0
    shown = capsys.readouterr()
    report = json.loads(shown.out)
    assert shown.err == ""
    assert report["rows"] == 3
    assert report["adapter"]["answers"]["rows"] == 2
    assert run_app(["eval", str(run / "missing")]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert len(shown.err.splitlines()) <= 3
    assert "Traceback" not in shown.err


def test_merge(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "merged"
    assert run_app(["merge", str(run), "-o", str(target), "--dtype", "bfloat16"]) == 0
    shown = capsys.readouterr()
    assert "KL" in shown.out
    assert "top-1 agreement" in shown.out
    assert "rounding to bfloat16" in shown.out
    assert run_app(["merge", str(run), "-o", str(target)]) == 7
    other = ["merge", str(run), "-o", str(tmp_path / "other"), "--dtype", "bfloat16"]
    assert run_app([*other, "--set", "merge.max_kl=0"]) == 9
    assert "nothing was written" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["merged"]
    assert run_app([*other, "--no-verify", "--json", "-q"]) == 0
    assert json.loads(capsys.readouterr().out)["verification"] is None
    assert run_app(["merge", str(run.parent / "base"), "-o", str(tmp_path / "third")]) == 2
    capsys.readouterr()
    for size in ("many", "0", "1"):
        assert run_app([*other, "--max-shard-size", size]) == 2
        said = capsys.readouterr().err
        assert (
            said.strip()
            == f"error: --max-shard-size: {size!r} is not a size such as 20GB or 512MiB"
        )


def test_generate_and_chat(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    short = ["--max-new-tokens", "5", "-q"]
    assert run_app(["generate", str(run), "--prompt", "1: red ->", *short]) == 0
    text = capsys.readouterr().out
    assert run_app(["generate", str(run), "--prompt", "1: red ->", *short, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)["results"][0]
    assert result["text"] + "\n" == text
    assert run_app(["generate", str(run), *short]) == 2
    assert "no prompt" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin", io.StringIO("1: red ->\n\n/new\n1: red ->\n/exit\nnever\n"))
    assert run_app(["chat", str(run), *short]) == 0
    assert capsys.readouterr().out == text * 2


def test_prompts_that_are_no_text_or_too_long(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    latin = io.TextIOWrapper(io.BytesIO(b"caf\xe9\n"), encoding="utf-8")
    monkeypatch.setattr("sys.stdin", latin)
    assert run_app(["generate", str(run), "--prompt-file", "-", "-q"]) == 2
    assert "not UTF-8 text" in capsys.readouterr().err
    assert run_app(["generate", str(run), "--prompt", "caf\udce9", "-q"]) == 2
    assert "not UTF-8 text" in capsys.readouterr().err
    assert run_app(["generate", str(run), "--prompt", "a" * 300, "-q"]) == 3
    said = capsys.readouterr()
    assert said.out == ""
    assert "300 tokens, and the model reads 256" in said.err


def test_a_chat_outlives_a_line_that_is_too_long(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("a" * 300 + "\nhello\n"))
    assert run_app(["chat", str(run), "--max-new-tokens", "3", "-q"]) == 0
    said = capsys.readouterr()
    assert "/new begins anew" in said.err
    assert said.out.endswith("\n")
    latin = io.TextIOWrapper(io.BytesIO(b"caf\xe9\n"), encoding="utf-8")
    monkeypatch.setattr("sys.stdin", latin)
    assert run_app(["chat", str(run), "-q"]) == 2
    assert "not UTF-8 text" in capsys.readouterr().err
