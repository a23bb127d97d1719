"""Lengths, counts, held-out rows and the report."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from qtune.data import prepare, read_eval
from qtune.errors import DataError, UsageError
from qtune.recipe.inputs import SourceSection
from tests.data.building import chat, encoded, messages_of, recipe, spans, write_jsonl
from tests.tiny import tiny_tokenizer


def pairs(count: int, *, size: int = 5) -> list[dict[str, str]]:
    return [{"prompt": f"{n:04d}", "completion": "x" * size} for n in range(count)]


LONG = {"prompt": "p" * 40, "completion": "c" * 40}


def test_overlong_rows_are_dropped_and_counted(tmp_path: Path) -> None:
    prepared = encoded(tmp_path, [*pairs(3), LONG], max_length=32)
    assert [row.place for row in prepared.train] == [f"train.jsonl:{n}" for n in (1, 2, 3)]
    source = prepared.report.to_dict()["train"]["sources"][0]
    assert (source["rows_read"], source["rows_used"]) == (4, 3)
    assert source["dropped"] == {"longer than 32 tokens": 1}
    assert "dropped: 1 longer than 32 tokens" in prepared.report.lines()[0]


def test_overlong_rows_are_cut_and_lost_ends_counted(tmp_path: Path) -> None:
    prepared = encoded(tmp_path, [*pairs(3), LONG], max_length=60, overlong="truncate_end")
    cut = prepared.train[3]
    assert spans(cut, tiny_tokenizer()) == ["c" * 20]
    assert cut.prompt_ids is not None
    source = prepared.report.to_dict()["train"]["sources"][0]
    assert (source["truncated"], source["end_lost"]) == (1, 1)


def test_overlong_rows_are_an_error_when_asked(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        encoded(tmp_path, [LONG, *pairs(3), LONG], max_length=32, overlong="error")
    assert [line.split(" (")[0] for line in messages_of(caught.value)] == [
        "train.jsonl:1: 81 tokens, max_length is 32",
        "train.jsonl:5: 81 tokens, max_length is 32",
    ]


@pytest.mark.parametrize("overlong", ["drop", "truncate_end", "truncate_prompt"])
def test_nothing_left_is_an_error(tmp_path: Path, overlong: str) -> None:
    with pytest.raises(DataError) as caught:
        encoded(tmp_path, [LONG] * 16, max_length=24, overlong=overlong)
    assert "0 of 16 rows keep a learnt token at max_length 24" in str(caught.value)


@pytest.mark.parametrize(("good", "fails"), [(98, True), (99, False)])
def test_over_one_percent_of_rows_without_a_learnt_token_is_an_error(
    tmp_path: Path, good: int, fails: bool
) -> None:
    rows = [*pairs(good), LONG]
    if fails:
        with pytest.raises(DataError, match="1 of 99 rows keep no learnt token at max_length 24"):
            encoded(tmp_path, rows, max_length=24, overlong="truncate_end")
        return
    source = encoded(tmp_path, rows, max_length=24, overlong="truncate_end").report.train_sources[0]
    assert source.dropped == {"without a learnt token": 1}
    assert source.used == good


@pytest.mark.parametrize("flag", [{"weight": 0}, {"train": False}])
def test_rows_that_mark_nothing_as_learnt_are_named_and_told_apart(
    tmp_path: Path, flag: dict[str, Any]
) -> None:
    good = chat(("user", "a"), ("assistant", "b"))
    unmarked = chat(("user", "a"), ("assistant", "b"))
    unmarked["messages"][1].update(flag)
    said = r"train.jsonl: 1 of 2 rows mark nothing as learnt \(weight 0 or .*\): train.jsonl:2"
    with pytest.raises(DataError, match=said):
        encoded(tmp_path, [good, unmarked])
    source = encoded(tmp_path, [*[good] * 99, unmarked]).report.train_sources[0]
    assert (source.used, source.unlearnable, source.unmarked) == (99, 0, 1)
    assert any("1 of 100 rows mark nothing as learnt" in line for line in source.lines())
    assert len(encoded(tmp_path, [good, unmarked], train_on="all").train) == 2


def test_the_counts_are_those_of_the_rows(tmp_path: Path) -> None:
    prepared = encoded(tmp_path, pairs(7))
    counts = prepared.report.to_dict()["train"]
    assert counts["tokens"] == sum(len(row.input_ids) for row in prepared.train)
    learnt = sum(label != -100 for row in prepared.train for label in row.labels)
    assert counts["supervised_tokens"] == learnt == 7 * 6
    assert counts["supervised_share"] == pytest.approx(learnt / counts["tokens"], abs=1e-6)
    assert counts["longest"] == max(len(row.input_ids) for row in prepared.train)


def test_the_report_says_format_reason_template_and_example(tmp_path: Path) -> None:
    row = chat(("user", "a"), ("assistant", "b"))
    report = encoded(tmp_path, [row]).report
    text = "\n".join(report.lines())
    assert "format messages (auto: column messages holds role/content turns)" in text
    assert "the tokenizer's chat template" in text
    assert "<s><|user|>⏎a<|assistant|>⏎⟦b</s>⟧" in text
    json.dumps(report.to_dict())


def test_progress_counts_all_rows(tmp_path: Path) -> None:
    train = write_jsonl(tmp_path / "train.jsonl", pairs(600))
    held = write_jsonl(tmp_path / "eval.jsonl", pairs(100))
    seen: list[tuple[int, int]] = []
    asked = recipe(train, eval=(SourceSection(path=str(held)),))
    prepare(asked, tiny_tokenizer(), on_progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (700, 700)
    assert len(seen) > 2


def test_faults_of_all_files_come_before_any_encoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qtune.data.encode.tokens.Tokens.encode", None)
    first = write_jsonl(tmp_path / "a.jsonl", [{"prompt": "x", "completion": None}])
    second = write_jsonl(tmp_path / "b.jsonl", [{"prompt": "x", "completion": ""}])
    missing = SourceSection(path=str(tmp_path / "c.jsonl"))
    with pytest.raises(DataError) as caught:
        prepare(recipe(first, second, eval=(missing,)), tiny_tokenizer())
    places = [fault.place for fault in caught.value.faults]
    assert places == ["a.jsonl:1", "b.jsonl:1", str(tmp_path / "c.jsonl")]


def test_a_fault_at_the_end_of_many_rows_is_found(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    good = json.dumps(chat(("user", "a question of some length " * 4), ("assistant", "yes " * 20)))
    path.write_text(f"{good}\n" * 10_000 + '{"messages": [')
    with pytest.raises(DataError, match=r"^train\.jsonl:10001: not valid JSON: the line is cut"):
        prepare(recipe(path), tiny_tokenizer())


def test_rows_are_checked_without_torch() -> None:
    code = (
        "import sys; import qtune.data, qtune.data.formats.detect; "
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_sources_of_several_formats_follow_each_other(tmp_path: Path) -> None:
    first = write_jsonl(tmp_path / "a.jsonl", pairs(2))
    second = write_jsonl(tmp_path / "b.jsonl", [chat(("user", "a"), ("assistant", "b"))])
    rows = prepare(recipe(first, second), tiny_tokenizer()).train
    assert [row.place for row in rows] == ["a.jsonl:1", "a.jsonl:2", "b.jsonl:1"]


def test_eval_sources_are_encoded_alike_and_shared_rows_said(tmp_path: Path) -> None:
    train = write_jsonl(tmp_path / "train.jsonl", pairs(10))
    held = write_jsonl(tmp_path / "eval.jsonl", pairs(12)[8:])
    source = SourceSection(path=str(held))
    asked = recipe(train, eval=(source,))
    prepared = prepare(asked, tiny_tokenizer())
    assert prepared.eval is not None
    assert prepared.eval.fingerprint == read_eval([source], asked, tiny_tokenizer()).fingerprint
    assert prepared.report.shared == 2
    assert any("2 training rows are also eval rows" in line for line in prepared.report.lines())


def held_out(folder: Path, rows: list[Any], **keys: Any) -> tuple[list[str], list[str]]:
    prepared = encoded(folder, rows, **keys)
    assert prepared.eval is not None
    return [row.place for row in prepared.train], [row.place for row in prepared.eval]


@pytest.mark.parametrize(("val_size", "count"), [(0.2, 10), (7, 7), (0.001, 1), (1.0, 1)])
def test_held_out_rows_are_as_many_as_asked_and_apart(
    tmp_path: Path, val_size: float, count: int
) -> None:
    train, held = held_out(tmp_path, pairs(50), val_size=val_size)
    assert len(held) == count
    assert not set(train) & set(held)
    assert len(train) + len(held) == 50


def test_equal_rows_are_held_out_together(tmp_path: Path) -> None:
    prepared = encoded(tmp_path, pairs(25) * 2, val_size=10)
    assert prepared.eval is not None
    assert not {tuple(r.input_ids) for r in prepared.train} & {
        tuple(r.input_ids) for r in prepared.eval
    }
    assert len(prepared.eval) == 10
    assert prepared.report.shared == 0


def test_the_held_out_rows_follow_from_rows_and_seed_alone(tmp_path: Path) -> None:
    rows = pairs(40)
    prompts = []
    for order in (rows, rows[::-1]):
        prepared = encoded(tmp_path, order, val_size=8)
        assert prepared.eval is not None
        prompts.append({tuple(row.prompt_ids or ()) for row in prepared.eval})
    assert prompts[0] == prompts[1]
    path = write_jsonl(tmp_path / "train.jsonl", rows)
    other = recipe(path, val_size=8)
    other = other.model_copy(update={"train": other.train.model_copy(update={"seed": 1})})
    changed = prepare(other, tiny_tokenizer()).eval
    assert changed is not None
    assert {tuple(row.prompt_ids or ()) for row in changed} != prompts[0]


@pytest.mark.parametrize(
    ("val_size", "error", "message"),
    [
        (1.5, UsageError, "data.val_size: a share below 1 or a whole number"),
        (4, DataError, "leaves no training row of 4"),
        (0.95, DataError, "leaves no training row of 4"),
    ],
)
def test_impossible_splits(
    tmp_path: Path, val_size: float, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        encoded(tmp_path, pairs(4), val_size=val_size)


def test_val_size_beside_eval_is_refused(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "train.jsonl", pairs(4))
    asked = recipe(path, val_size=2, eval=(SourceSection(path=str(path)),))
    with pytest.raises(UsageError, match="no effect beside"):
        prepare(asked, tiny_tokenizer())


def test_the_fingerprint_changes_with_a_token_a_mask_and_the_order(tmp_path: Path) -> None:
    rows = pairs(3)
    prints = {
        encoded(tmp_path, rows).train.fingerprint,
        encoded(tmp_path, rows, train_on="all").train.fingerprint,
        encoded(tmp_path, rows[::-1]).train.fingerprint,
        encoded(tmp_path, [{**rows[0], "completion": "y"}, *rows[1:]]).train.fingerprint,
    }
    assert len(prints) == 4
    assert encoded(tmp_path, rows).train.fingerprint in prints
