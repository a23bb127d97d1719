"""`qtune data check`: exit 0 or 3, and why."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qtune.cli.app import run_app
from qtune.data.encode.encoder import Encoder
from qtune.data.rows import Encoded
from tests.cli.data_recipe import exchange, make_recipe
from tests.data.building import write_jsonl

ROWS = [exchange(number) for number in range(8)]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def checked(recipe: Path, capsys: pytest.CaptureFixture[str], code: int) -> tuple[Any, str]:
    """The JSON and the lines on stderr without it, from one recipe called both ways."""
    assert run_app(["data", "check", str(recipe), "-q"]) == code
    lines = capsys.readouterr()
    assert "Traceback" not in lines.err
    assert run_app(["data", "check", str(recipe), "--json", "-q"]) == code
    shown = capsys.readouterr()
    assert shown.err == ""
    report = json.loads(shown.out)
    assert report["valid"] is (code == 0)
    return report, lines.out + lines.err


def test_good_rows_are_a_line_a_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report, said = checked(make_recipe(tmp_path, ROWS), capsys, 0)
    assert "rows.jsonl: 8 rows, 8 rows used, messages" in said
    assert "all is well" in said
    assert report["faults"] == report["warnings"] == []
    assert report["sources"][0]["rows_used"] == 8


def test_faulty_rows_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = make_recipe(tmp_path, [*ROWS, {"messages": [{"role": "user", "content": "x"}]}, {}])
    report, said = checked(recipe, capsys, 3)
    assert len(report["faults"]) == 2
    assert "rows.jsonl:9" in said
    assert "rows.jsonl:10" in said


def test_a_row_beyond_the_models_positions_is_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = make_recipe(tmp_path, [*ROWS, exchange(1, "a" * 400)], max_length=600)
    report, said = checked(recipe, capsys, 0)
    told = r"1 of 9 rows are longer than the 256 positions .*: up to 4\d\d tokens"
    assert re.search(told + r" \(set data.max_length: 256\)", said)
    assert [warning["place"] for warning in report["warnings"]] == ["data.max_length"]
    config = tmp_path / "model" / "config.json"
    config.write_text(json.dumps({"model_type": "gpt2", "n_positions": 256}))
    report, _ = checked(recipe, capsys, 3)  # its positions are a table
    assert [fault["hint"] for fault in report["faults"]] == ["set data.max_length: 256"]
    for method, hint in (
        ("{name: prefix, num_virtual_tokens: 16}", "set data.max_length: 240"),
        ("{name: prompt, num_virtual_tokens: 256}", "lower method.num_virtual_tokens"),
    ):
        rows = [exchange(1, "a" * 215)]  # more than 240 tokens, and less than 256
        recipe = make_recipe(tmp_path, rows, max_length=600, more=f"method: {method}")
        config.write_text(json.dumps({"model_type": "gpt2", "n_positions": 256}))
        report, _ = checked(recipe, capsys, 3)
        assert [fault["hint"] for fault in report["faults"]] == [hint]


def test_a_cut_answer_is_a_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [*ROWS, exchange(1, "a" * 400)]
    recipe = make_recipe(tmp_path, rows, overlong="truncate_end")
    report, said = checked(recipe, capsys, 3)
    assert "1 of 9 answers are cut and do not teach where to stop: rows.jsonl:9" in said
    assert len(report["faults"]) == 1
    assert report["sources"][0]["end_lost_places"] == ["rows.jsonl:9"]


def test_a_row_that_marks_nothing_as_learnt_is_a_fault(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unmarked = exchange(1)
    unmarked["messages"][1]["weight"] = 0
    many = [exchange(number) for number in range(100)]
    report, said = checked(make_recipe(tmp_path, [*many, unmarked]), capsys, 3)
    assert "1 of 101 rows mark nothing as learnt (weight 0 or train: false): rows.jsonl:101" in said
    assert len(report["faults"]) == 1


def test_a_split_answer_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [*ROWS, exchange(1, "a" * 400)]
    report, _ = checked(make_recipe(tmp_path, rows, overlong="split"), capsys, 0)
    assert report["sources"][0]["split"] == 1


def test_an_answer_without_its_end_is_a_fault_even_if_nothing_was_cut(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = Encoder._row

    def endless(encoder: Encoder, *row: Any) -> Encoded:
        made = ended(encoder, *row)
        return replace(made, ids=made.ids[:-2], learnt=made.learnt[:-2])

    monkeypatch.setattr(Encoder, "_row", endless)
    report, said = checked(make_recipe(tmp_path, ROWS), capsys, 3)
    (fault,) = report["faults"]
    assert "has an answer that does not end on a learnt end token, and 7 more rows" in said
    assert fault["place"] == "rows.jsonl:1"


def test_evaluation_rows_in_training_are_a_fault(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_jsonl(tmp_path / "eval.jsonl", [exchange(3), exchange(99)])
    recipe = make_recipe(tmp_path, ROWS, eval=[{"path": "eval.jsonl"}])
    _, said = checked(recipe, capsys, 3)
    assert "1 training rows are evaluation rows too" in said
    recipe = make_recipe(tmp_path, ROWS, eval=[{"path": "eval.jsonl"}], deduplicate=True)
    report, _ = checked(recipe, capsys, 0)
    assert report["faults"] == []


def test_many_duplicates_are_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report, said = checked(make_recipe(tmp_path, [*ROWS, ROWS[0]]), capsys, 0)
    assert "warning: data.train: 1 of 9 rows stand there twice" in said
    assert "no faults, 1 warning\n" in said
    assert "all is well" not in said
    assert len(report["warnings"]) == 1


def test_an_end_is_learnt_where_the_template_has_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = make_recipe(tmp_path, ROWS)
    template = tmp_path / "model" / "chat_template.jinja"
    template.write_text(template.read_text().replace("{{ eos_token }}", ""))
    report, _ = checked(recipe, capsys, 0)
    assert report["faults"] == []


def test_rows_learnt_whole_may_end_on_text_of_the_template(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report, _ = checked(make_recipe(tmp_path, ROWS, more="loss: {train_on: all}\n"), capsys, 0)
    assert report["faults"] == []
