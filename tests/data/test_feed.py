"""Steps of rows: whole epochs, resumed without replay, equal rows padded or packed."""

from __future__ import annotations

import threading
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from qtune.data import EncodedRow, Rows
from qtune.data.batch import Batch
from qtune.data.feed import Feed, Joined, Packed, Padded, make_feed
from qtune.data.order import Order
from qtune.data.rows import Encoded, RowStore
from tests.data.building import encoded, recipe


def made(count: int, *, batch_size: int, capacity: int = 0, micro: int = 3, **keys: bool) -> Feed:
    store = RowStore()
    for number in range(1, count + 1):
        size = 2 + number % 7
        store.add(
            Encoded(
                file="a", number=number, ids=[number] * size, learnt=[False] + [True] * (size - 1)
            )
        )
    rows = Rows(store, range(count))
    layout = Packed(micro, 0, capacity) if capacity else Padded(micro, 0, 512)
    order = Order(rows.lengths, rows.sources, seed=5, **keys)
    return Feed(rows=rows, order=order, batch_size=batch_size, layout=layout)


def places(steps: list[list[Batch]]) -> list[list[list[str]]]:
    return [[batch.places for batch in step] for step in steps]


def test_steps_split_an_epoch_and_the_last_one_is_smaller() -> None:
    steps = places(list(made(10, batch_size=4, shuffle=False).steps(4)))
    assert [[len(batch) for batch in step] for step in steps] == [[3, 1], [3, 1], [2], [3, 1]]
    first = [sorted(place for batch in step for place in batch) for step in steps]
    rows = [f"a:{number}" for number in range(1, 10)]
    assert first == [rows[:4], rows[4:8], ["a:10", "a:9"], rows[:4]]
    assert steps[3] == steps[0]


def test_rows_of_like_length_pad_each_other_within_a_step() -> None:
    (step,) = made(7, batch_size=7, micro=2, shuffle=False).steps(1)
    assert [batch.places for batch in step] == [
        ["a:6", "a:5"],
        ["a:4", "a:3"],
        ["a:2", "a:1"],
        ["a:7"],
    ]
    assert [tuple(batch.input_ids.shape) for batch in step] == [(2, 8), (2, 6), (2, 4), (1, 2)]
    (whole,) = made(7, batch_size=7, micro=7, shuffle=False).steps(1)
    assert whole[0].places == [f"a:{number}" for number in range(1, 8)]  # nothing to gain


def test_the_next_step_is_made_while_one_is_used_and_no_thread_stays() -> None:
    feed = made(40, batch_size=4)
    before = threading.active_count()
    steps = feed.steps(10)
    next(steps)
    assert threading.active_count() == before + 1
    steps.close()
    assert threading.active_count() == before


def test_a_fault_of_a_later_row_comes_in_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    feed = made(8, batch_size=2)
    taken = Rows.take

    def take(self: Rows, chosen: Any) -> Any:
        if len(seen) == 2:
            raise ValueError("row")
        seen.append(1)
        return taken(self, chosen)

    seen: list[int] = []
    monkeypatch.setattr(Rows, "take", take)
    steps = feed.steps(4)
    assert len(list(islice(steps, 2))) == 2
    with pytest.raises(ValueError, match="row"):
        next(steps)


@pytest.mark.parametrize("start", [1, 3, 4, 7])
@pytest.mark.parametrize("capacity", [0, 12])
def test_starting_later_is_the_tail_of_the_straight_sequence(start: int, capacity: int) -> None:
    feed = made(10, batch_size=4, capacity=capacity)
    straight = places(list(feed.steps(8)))
    assert places(list(feed.steps(8, start=start))) == straight[start:]
    epochs = [sorted(p for s in straight[n : n + 3] for b in s for p in b) for n in (0, 3)]
    assert epochs[0] == epochs[1]
    assert straight[0] != straight[3]


@pytest.mark.parametrize("order", [{}, {"shuffle": False}, {"group_by_length": True}])
@pytest.mark.parametrize("capacity", [0, 12])
def test_starting_later_gives_the_same_tensors_and_reads_no_earlier_row(
    capacity: int, order: dict[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = list(made(10, batch_size=4, capacity=capacity, **order).steps(8))
    read: list[int] = []
    row = RowStore.row

    def seen(store: RowStore, number: int) -> EncodedRow:
        read.append(number)
        return row(store, number)

    monkeypatch.setattr(RowStore, "row", seen)
    for start in range(1, 9):
        read.clear()
        late = list(made(10, batch_size=4, capacity=capacity, **order).steps(8, start))
        for one, other in zip(straight[start:], late, strict=True):
            for mine, theirs in zip(one, other, strict=True):
                assert torch.equal(mine.input_ids, theirs.input_ids)
                assert torch.equal(mine.labels, theirs.labels)
                assert mine.places == theirs.places
        assert len(read) == sum(len(b.places) for step in straight[start:] for b in step)


@pytest.mark.parametrize("capacity", [0, 12, 40])
@pytest.mark.parametrize("micro", [1, 2, 6])
def test_neither_packing_nor_the_micro_batch_changes_the_rows_of_a_step(
    capacity: int, micro: int
) -> None:
    plain = list(made(12, batch_size=6, micro=6).steps(4))
    other = list(made(12, batch_size=6, micro=micro, capacity=capacity).steps(4))
    for one, many in zip(plain, other, strict=True):
        assert sorted(one[0].places) == sorted(p for batch in many for p in batch.places)
        assert one[0].supervised == sum(batch.supervised for batch in many)
        assert one[0].tokens == sum(batch.tokens for batch in many)


@pytest.mark.parametrize("capacity", [0, 12])
def test_the_fill_is_that_of_the_tensors(capacity: int) -> None:
    feed = made(33, batch_size=8, capacity=capacity)
    batches = [batch for step in feed.steps(5) for batch in step]
    real, computed = sum(b.tokens for b in batches), sum(b.computed for b in batches)
    assert feed.fill() == pytest.approx(real / computed)
    assert np.isclose(feed.fill(), 1.0) == (real == computed)


def test_var_len_attention_gets_one_sequence_without_padding() -> None:
    plain = made(33, batch_size=8, micro=2, capacity=12)
    joined = replace(plain, layout=Joined(2, 0, 12))
    assert joined.fill() == 1.0
    for one, other in zip(plain.steps(5), joined.steps(5), strict=True):
        assert [len(batch.input_ids) for batch in other] == [1] * len(other)
        assert sorted(p for b in one for p in b.places) == sorted(
            p for b in other for p in b.places
        )
        assert all(batch.computed <= 2 * 12 for batch in other)


@pytest.mark.parametrize(
    ("attention", "kind"), [("flash_attention_2", Joined), ("sdpa", Packed), ("eager", Packed)]
)
def test_the_layout_follows_the_attention(attention: str, kind: type, tmp_path: Path) -> None:
    rows = encoded(tmp_path, [{"text": "a b c"}]).train
    asked = recipe(tmp_path / "train.jsonl", packing=True)
    model = asked.model.model_copy(update={"attn_implementation": attention})
    asked = asked.model_copy(update={"model": model})
    feed = make_feed(asked, rows, micro_batch_size=2, pad_id=0)
    assert type(feed.layout) is kind
