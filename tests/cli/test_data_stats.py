"""`qtune data stats`: numbers for people, for programs and as a page."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from qtune.cli.app import run_app
from tests.cli.data_recipe import exchange, make_recipe
from tests.tiny import tiny_tokenizer

ROWS = [exchange(number, "word " * (1 + number % 9)) for number in range(40)] + [exchange(1)] * 2


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "80")
    return make_recipe(tmp_path, ROWS, more="memory: {micro_batch_size: 4}\n")


def test_json_is_one_object_of_true_numbers(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_app(["data", "stats", str(recipe), "--json", "-q"]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    report = json.loads(shown.out)
    tokenizer = tiny_tokenizer()
    ids = [
        tokenizer.apply_chat_template(row["messages"], tokenize=True, return_dict=False)
        for row in ROWS
    ]
    train = report["train"]
    assert train["rows"] == 42
    assert train["tokens"] == sum(map(len, ids))
    learnt = [len(row["messages"][1]["content"].encode()) + 1 for row in ROWS]
    assert train["supervised_tokens"] == sum(learnt)
    assert report["duplicates"] == 1
    assert report["lengths"]["quantiles"]["p99"] == max(map(len, ids))
    assert sum(bar["rows"] for bar in report["lengths"]["histogram"]) == 42
    assert report["fill"]["micro_batch_size"] == 4
    fill = report["fill"]
    assert 0 < fill["padded"] < fill["grouped"] <= 1
    assert fill["padded"] < fill["packed"] <= 1
    assert fill["packed_whole"] <= 1
    assert set(report["scripts"]) == {"Latin", "Han"}


def test_people_see_it_within_their_terminal(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_app(["data", "stats", str(recipe), "-q", "--set", "data.max_length=60"]) == 0
    out = capsys.readouterr().out
    for said in ("rows.jsonl", "messages", "longer than 60 tokens", "median", "learnt", "padding"):
        assert said in out
    assert "rows that stand there twice: 1 (4.5%)" in out
    assert max(map(len, out.splitlines())) <= 80
    assert "\x1b" not in out


def test_the_page_stands_alone(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "stats.html"
    assert run_app(["data", "stats", str(recipe), "--html", str(target)]) == 0
    assert capsys.readouterr().out == ""
    page = target.read_text()
    assert page.count("<svg") == 1
    assert not re.search(r"(src|href)=\"http", page)
    for said in ("42 training rows", "given: ", "learnt: ", "median: ", "tokens in a row"):
        assert said in page
    assert run_app(["data", "stats", str(recipe), "--html", str(target)]) == 7
