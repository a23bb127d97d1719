"""Rows longer than max_length: what is kept, what is counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from qtune.data import EncodedRow
from tests.data.building import encoded, spans
from tests.tiny import tiny_tokenizer

MARK = tiny_tokenizer()


def row(prompt: int, answer: int) -> dict[str, str]:
    return {"prompt": "p" * prompt, "completion": "c" * answer}


def text(found: EncodedRow) -> str:
    return str(MARK.decode(found.input_ids))


def test_the_prompt_is_cut_from_its_beginning_and_the_answer_stays_whole(tmp_path: Path) -> None:
    long = {"prompt": "".join(chr(97 + n % 26) for n in range(40)), "completion": "ANSWER"}
    found = encoded(tmp_path, [row(3, 3)] * 3 + [long], max_length=20, overlong="truncate_prompt")
    cut = found.train[3]
    assert len(cut.input_ids) == 20
    assert spans(cut, MARK) == ["ANSWER</s>"]
    assert text(cut).removeprefix("<s>").startswith(long["prompt"][-13:])
    assert cut.prompt_ids == cut.input_ids[: len(cut.prompt_ids or [])]
    assert MARK.decode((cut.prompt_ids or [])[-3:]) == long["prompt"][-3:]
    source = found.report.train_sources[0]
    assert (source.truncated, source.end_lost) == (1, 0)


@pytest.mark.parametrize(("answer", "kept"), [(18, True), (19, False), (40, False)])
def test_an_answer_that_leaves_no_room_for_a_prompt_is_left_out(
    tmp_path: Path, answer: int, kept: bool
) -> None:
    rows = [row(3, 3)] * 3 + [row(30, answer)]
    found = encoded(tmp_path, rows, max_length=20, overlong="truncate_prompt")
    assert len(found.train) == 3 + kept
    dropped = found.report.train_sources[0].dropped
    assert dropped == ({} if kept else {"answers longer than 20 tokens": 1})


@pytest.mark.parametrize("limit", [7, 20, 39])
def test_split_learns_every_token_of_the_answer_once(tmp_path: Path, limit: int) -> None:
    long = {"prompt": "p" * 11, "completion": "".join(chr(65 + n % 26) for n in range(60))}
    found = encoded(tmp_path, [long], max_length=limit, overlong="split")
    assert all(len(piece.input_ids) <= limit for piece in found.train)
    learnt = "".join("".join(spans(piece, MARK)) for piece in found.train)
    assert learnt == long["completion"] + "</s>"
    assert found.report.train_sources[0].split == 1


def test_cut_ends_are_told_with_their_places(tmp_path: Path) -> None:
    rows = [row(3, 3), row(3, 40), row(3, 3), row(3, 50)]
    found = encoded(tmp_path, rows, max_length=20, overlong="truncate_end")
    said = "\n".join(found.report.lines())
    assert "2 of them lost the end of their answer" in said
    assert "train.jsonl:2, train.jsonl:4" in said
