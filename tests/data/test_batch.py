"""Padding by position, pure order, steps that resume without replay."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from qtune.data import EncodedRow, Rows
from qtune.data.batch import Batch, collate, epoch_order, step_batches
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


def test_the_order_of_an_epoch_is_a_pure_function() -> None:
    wanted = epoch_order(100, seed=1, epoch=2, shuffle=True)
    random.seed(9)
    np.random.seed(9)
    torch.manual_seed(9)
    assert epoch_order(100, seed=1, epoch=2, shuffle=True) == wanted
    assert sorted(wanted) == list(range(100))
    others = [epoch_order(100, seed=s, epoch=e, shuffle=True) for s, e in ((1, 3), (2, 2))]
    assert wanted not in others
    assert epoch_order(5, seed=1, epoch=2, shuffle=False) == [0, 1, 2, 3, 4]


def test_the_order_never_changes_between_versions() -> None:
    """A resumed run depends on it: numpy promises this stream for ever."""
    reference = np.random.RandomState(np.random.MT19937(np.random.SeedSequence([42, 0])))
    assert epoch_order(8, seed=42, epoch=0, shuffle=True) == reference.permutation(8).tolist()


def places(steps: list[list[Batch]]) -> list[list[list[str]]]:
    return [[batch.places for batch in step] for step in steps]


def test_steps_split_an_epoch_and_the_last_one_is_smaller(tmp_path: Path) -> None:
    steps = list(
        step_batches(
            rows(tmp_path, 10),
            batch_size=4,
            micro_batch_size=3,
            seed=0,
            shuffle=False,
            total_steps=4,
        )
    )
    assert [[len(batch.places) for batch in step] for step in steps] == [
        [3, 1],
        [3, 1],
        [2],
        [3, 1],
    ]
    first = [place for step in steps[:3] for batch in step for place in batch.places]
    assert first == [f"train.jsonl:{n}" for n in range(1, 11)]
    assert places(steps)[3] == places(steps)[0]


@pytest.mark.parametrize("start", [1, 3, 4, 7])
def test_resuming_is_the_tail_of_the_straight_sequence(tmp_path: Path, start: int) -> None:
    data = rows(tmp_path, 10)
    settings = {
        "batch_size": 4,
        "micro_batch_size": 3,
        "seed": 5,
        "shuffle": True,
        "total_steps": 8,
    }
    straight = places(list(step_batches(data, **settings)))
    resumed = places(list(step_batches(data, start_step=start, **settings)))
    assert resumed == straight[start:]
    epochs = [sorted(p for s in straight[n : n + 3] for b in s for p in b) for n in (0, 3)]
    assert epochs[0] == epochs[1]
    assert straight[0] != straight[3]


def test_a_micro_batch_changes_no_row_of_the_step(tmp_path: Path) -> None:
    data = rows(tmp_path, 12)
    settings = {"batch_size": 6, "seed": 5, "shuffle": True, "total_steps": 2}
    whole = list(step_batches(data, micro_batch_size=6, **settings))
    split = list(step_batches(data, micro_batch_size=1, **settings))
    for one, many in zip(whole, split, strict=True):
        assert one[0].places == [place for batch in many for place in batch.places]
        assert one[0].supervised == sum(batch.supervised for batch in many)


def test_rows_are_a_sequence(tmp_path: Path) -> None:
    data = rows(tmp_path, 5)
    assert [row.place for row in data[1:3]] == ["train.jsonl:2", "train.jsonl:3"]
    assert data[-1].place == "train.jsonl:5"
    assert data.lengths.tolist() == [len(row.input_ids) for row in data]
    assert data.supervised.tolist() == [sum(label != -100 for label in row.labels) for row in data]
    with pytest.raises(IndexError):
        data[5]
