"""Answers in batches are those of single rows; scores are those worked out by hand."""

from __future__ import annotations

import pytest

from qtune.evaluation.answers import Answer, answer, answerable, score, score_difference
from qtune.evaluation.decode import decode
from tests.evaluation.rows import rows_of
from tests.tiny import tiny_llama, tiny_tokenizer

ROWS = rows_of((5, 3), (1, 9), (30, 2), (4, 4), (2, 17))


def said(text: str, reference: str, *, stopped: bool = True) -> Answer:
    return Answer(place="a:1", prompt="", reference=reference, text=text, stopped=stopped)


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_batches_do_not_matter(batch_size: int) -> None:
    model, tokenizer = tiny_llama(seed=4, initializer_range=0.3), tiny_tokenizer()
    found = answer(model, tokenizer, ROWS, max_new_tokens=12, batch_size=batch_size)
    assert [one.place for one in found] == [row.place for row in ROWS]
    for row, one in zip(ROWS, found, strict=True):
        alone = decode(model, [row.prompt_ids], max_new_tokens=12, stop_ids=frozenset([1]))[0]
        assert one.text == tokenizer.decode(alone.ids, skip_special_tokens=True)
        assert one.stopped == alone.stopped
        assert one.prompt == tokenizer.decode(row.prompt_ids)
        assert one.reference == row.answer


def test_the_rows_own_end_token_stops() -> None:
    model, tokenizer = tiny_llama(seed=4, initializer_range=0.3), tiny_tokenizer()
    prompt = ROWS[0].prompt_ids
    free = decode(model, [prompt], max_new_tokens=8, stop_ids=frozenset([1]))[0].ids
    rows = rows_of((5, 3))
    end = free[-1]
    rows._store.stop_ids.add(end)
    found = answer(model, tokenizer, rows, max_new_tokens=8, batch_size=1)[0]
    assert found.stopped
    assert found.text == tokenizer.decode(free[: free.index(end)], skip_special_tokens=True)


def test_the_context_ends_an_answer() -> None:
    model = tiny_llama(max_position_embeddings=32)
    prompts = [[5] * 30, [6] * 10, [7] * 40]
    found = decode(model, prompts, max_new_tokens=9, stop_ids=frozenset([-1]))
    assert [len(one.ids) for one in found] == [2, 9, 0]


def test_answerable_rows() -> None:
    rows = rows_of((0, 3), (2, 2), (1, 1))
    assert [row.place for row in answerable(rows, 5)] == ["hand.jsonl:2", "hand.jsonl:3"]
    assert [row.place for row in answerable(rows, 1)] == ["hand.jsonl:2"]
    assert len(answerable(rows, 0)) == 0


def test_scores() -> None:
    figures = score(
        [said("Paris", "Paris"), said("the cat", "cat"), said("dog", "cat", stopped=False)]
    )
    assert figures["rows"] == 3
    assert figures["exact_match"] == pytest.approx(1 / 3)
    assert figures["token_f1"] == pytest.approx(2 / 3)
    assert figures["stopped"] == pytest.approx(2 / 3)
    assert figures["exact_match_low"] <= 1 / 3 <= figures["exact_match_high"]


def test_paired_scores() -> None:
    ours, base = [said("a b", "a b"), said("c", "c")], [said("x", "a b"), said("c", "c")]
    moved = score_difference(ours, base)
    assert moved["exact_match"] == 0.5
    assert moved["exact_match_low"] == 0.0
    assert moved["exact_match_high"] == 1.0
    assert moved["stopped"] == moved["stopped_low"] == 0.0
