"""Padding by position, packing by positions."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from qtune.data import EncodedRow, Rows
from qtune.data.batch import collate, collate_packed
from tests.data.building import encoded
from tests.tiny import tiny_tokenizer

SHORT = EncodedRow([5, 6, 1], [-100, 6, 1], "a:1")
LONG = EncodedRow([7, 8, 9, 1, 1], [-100, -100, 9, 1, 1], "a:2")


def rows(folder: Path, count: int) -> Rows:
    values = [{"prompt": "p", "completion": "x" * (n % 7 + 1)} for n in range(count)]
    return encoded(folder, values).train


def test_padding_on_the_right_is_never_learnt_or_seen() -> None:
    batch = collate([SHORT, LONG], pad_id=2)
    assert batch.input_ids.tolist() == [[5, 6, 1, 2, 2], [7, 8, 9, 1, 1]]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    assert batch.labels.tolist() == [[-100, 6, 1, -100, -100], [-100, -100, 9, 1, 1]]
    assert (batch.tokens, batch.supervised, batch.places) == (8, 5, ["a:1", "a:2"])
    assert batch.input_ids.dtype == batch.labels.dtype == torch.int64


def test_a_pad_that_is_the_end_of_sequence_hides_no_end(tmp_path: Path) -> None:
    made = tiny_tokenizer()
    made.pad_token = made.eos_token
    batch = collate(list(rows(tmp_path, 7)), pad_id=made.pad_token_id)
    ends = (batch.labels == made.eos_token_id).sum(dim=1)
    assert ends.tolist() == [1] * 7
    assert batch.supervised == sum(n + 2 for n in range(7))


def test_packed_rows_begin_again_and_their_first_token_is_no_label() -> None:
    batch = collate_packed([[LONG, SHORT], [SHORT]], pad_id=2)
    assert batch.attention_mask is None
    assert batch.position_ids is not None
    assert batch.input_ids.tolist() == [[7, 8, 9, 1, 1, 5, 6, 1], [5, 6, 1, 2, 2, 2, 2, 2]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 4, 0, 1, 2], [0, 1, 2, 0, 1, 2, 3, 4]]
    assert batch.labels.tolist() == [[-100, -100, 9, 1, 1, -100, 6, 1], [-100, 6, 1, *[-100] * 5]]
    assert (batch.tokens, batch.supervised, batch.computed) == (11, 7, 16)
    assert batch.places == ["a:2", "a:1", "a:1"]
    assert set(batch.inputs()) == {"input_ids", "position_ids"}


def test_the_first_token_of_a_packed_row_is_no_label_even_if_the_row_says_so() -> None:
    whole = EncodedRow([5, 6], [5, 6], "a:1")
    assert collate_packed([[whole, whole]], pad_id=2).labels.tolist() == [[-100, 6, -100, 6]]


def test_rows_are_a_sequence(tmp_path: Path) -> None:
    data = rows(tmp_path, 5)
    assert [row.place for row in data[1:3]] == ["train.jsonl:2", "train.jsonl:3"]
    assert data[-1].place == "train.jsonl:5"
    assert data.lengths.tolist() == [len(row.input_ids) for row in data]
    assert data.supervised.tolist() == [sum(label != -100 for label in row.labels) for row in data]
    with pytest.raises(IndexError):
        data[5]
