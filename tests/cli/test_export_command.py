"""qtune export's forms: each with its own options, all told in a few lines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qtune.cli.app import run_app
from tests.gguf import workshop
from tests.run.made_run import make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = make_run(tmp_path_factory.mktemp("made"))
    workshop.byte_level(size=316).save_pretrained(run.parent / "base")
    return run


def export(run: Path, *arguments: str) -> int:
    return run_app(["export", str(run), *arguments])


@pytest.mark.parametrize(
    ("to", "option"),
    [
        ("gguf", ["--rank", "2"]),
        ("merged", ["--dtype", "f16"]),
        ("peft", ["--dtype", "f16"]),
        ("gguf-lora", ["--pre-tokenizer", "gpt-2"]),
    ],
)
def test_an_option_of_another_form_is_refused(
    to: str, option: list[str], run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert export(run, "-o", str(tmp_path / "new"), "--to", to, *option) == 2
    assert f"{option[0]}: --to {to} has no use for it" in capfd.readouterr().err


def test_all_forms_of_one_run(run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert export(run, "-o", str(tmp_path / "peft"), "-q") == 0
    assert "lora of rank 4" in capfd.readouterr().out
    assert export(run, "-o", str(tmp_path / "merged"), "--to", "merged", "-q") == 0
    assert "on the dequantized base" in capfd.readouterr().out
    assert export(run, "-o", str(tmp_path / "m.gguf"), "--to", "gguf", "-q") == 0
    said = capfd.readouterr().out
    for text in ("21 tensors in f32", "read back equal", "cut as gpt-2", "KL 0.00e+00", "template"):
        assert text in said
    assert export(run, "-o", str(tmp_path / "l"), "--to", "gguf-lora", "-q", "--json") == 0
    report = json.loads(capfd.readouterr().out)
    assert (report["format"], report["ranks"], report["tensors"]) == ("gguf-lora", [4], 28)
    assert [Path(path).name for path in report["files"]] == ["README.md", "Modelfile", "lora.gguf"]
    assert export(run, "-o", str(tmp_path / "m.gguf"), "--to", "gguf", "-q") == 7
