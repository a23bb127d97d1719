"""Rows of judged answers: to be looked at and checked, not to be trained on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from qtune.cli.app import run_app
from tests.cli.data_recipe import make_recipe

PAIRS = [{"prompt": f"{n}+1=", "chosen": str(n + 1), "rejected": str(n)} for n in range(6)]
VERDICTS = [{"prompt": f"{n}+1=", "completion": str(n), "label": n < 3} for n in range(6)]
KINDS = pytest.mark.parametrize(
    ("rows", "kind", "name"),
    [(PAIRS, "preference pairs", "preference"), (VERDICTS, "unpaired preferences", "unpaired")],
)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@KINDS
def test_training_is_refused_before_weights_are_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rows: list[Any], kind: str, name: str
) -> None:
    recipe = make_recipe(tmp_path, rows)  # its model has no weights
    assert run_app(["train", str(recipe), "-q"]) == 2
    said = capsys.readouterr().err
    assert f"rows.jsonl: {kind} are read and checked, but qtune does not train on them yet" in said
    assert run_app(["train", str(recipe), "-q", "--set", f"data.train.0.format={name}"]) == 2


@KINDS
def test_they_are_shown_and_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rows: list[Any], kind: str, name: str
) -> None:
    recipe = make_recipe(tmp_path, rows)
    assert run_app(["data", "check", str(recipe), "--json", "-q"]) == 0
    (source,) = json.loads(capsys.readouterr().out)["sources"]
    assert (source["format"], source["purpose"]) == (name, name)
    assert kind
    assert run_app(["data", "preview", str(recipe), "--json", "-q"]) == 0
    first = json.loads(capsys.readouterr().out)["rows"][0]
    assert first["place"] == f"rows.jsonl:1 ({'chosen' if name == 'preference' else 'desirable'})"


def test_one_answer_of_each_pair_may_be_learnt(tmp_path: Path) -> None:
    columns = {"completion": "chosen"}
    source = {"format": "prompt-completion", "columns": columns}
    assert run_app(["data", "check", str(make_recipe(tmp_path, PAIRS, source=source)), "-q"]) == 0


def test_a_garbled_row_is_a_warning_with_its_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"prompt": "a", "completion": "b"}, {"prompt": "Itâ€™s", "completion": "c"}]
    assert run_app(["data", "check", str(make_recipe(tmp_path, rows)), "--json", "-q"]) == 0
    (warning,) = json.loads(capsys.readouterr().out)["warnings"]
    assert warning["place"] == "rows.jsonl:2"
    assert warning["message"].startswith("1 rows hold UTF-8 that was read as cp1252")


def test_a_pair_that_prefers_nothing_may_be_left_out_and_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [*PAIRS, {"prompt": "a", "chosen": "b", "rejected": "b"}]
    assert run_app(["data", "check", str(make_recipe(tmp_path, rows)), "-q"]) == 3
    assert "rows.jsonl:7: chosen: is the same as rejected" in capsys.readouterr().err
    recipe = make_recipe(tmp_path, rows, on_bad_row="skip")
    assert run_app(["data", "check", str(recipe), "--json", "-q"]) == 0
    (warning,) = json.loads(capsys.readouterr().out)["warnings"]
    assert warning["message"].startswith("1 faulty rows skipped; the first: rows.jsonl:7: chosen")
