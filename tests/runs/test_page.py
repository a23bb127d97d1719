"""The page of a CI job."""

from __future__ import annotations

from pathlib import Path

import pytest

from qtune.cli.app import run_app
from qtune.runs.page import portable_text


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("/a/b/c.txt:3: bad", "c.txt:3: bad"),
        ("see https://x.org/a/b and org/model", "see https://x.org/a/b and org/model"),
        ("runs/x/adapter", "runs/x/adapter"),
        ("in '/a/b c/d'", "in 'b c/d'"),
        ("/a/b", "b"),
    ],
)
def test_messages_lose_the_folders_of_the_machine(text: str, kept: str) -> None:
    assert portable_text(text) == kept


def test_a_refused_command_is_told_on_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "page.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(page))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("model: org/m\ndata: {train: [{path: x}]}\noptim: {lr: 1, learing_rate: 2}\n")
    assert run_app(["train", str(recipe)]) == 2
    text = page.read_text()
    assert text.startswith("### qtune: train ended with exit code 2\n\n- recipe.yaml:3: ")
    assert "learing\\_rate: unknown key" in text
    assert str(tmp_path) not in text


def test_a_page_that_cannot_be_written_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path))
    assert run_app(["show", "nothing.yaml"]) == 2
    assert "GITHUB_STEP_SUMMARY cannot be written" in capfd.readouterr().err
