"""The heaviest micro-batch is the one that the feed's own batches show."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from qtune.data import Rows
from qtune.data.feed import Feed, Joined, Padded, Shared, make_feed
from qtune.data.heaviest import heaviest
from qtune.data.order import Order
from qtune.data.rows import Encoded, RowStore
from tests.data.building import write_jsonl
from tests.data.test_feed import made
from tests.data.test_stream import pairs, streamed


@pytest.mark.parametrize("start", [0, 9])
@pytest.mark.parametrize(
    "settings",
    [
        {"batch_size": 6},
        {"batch_size": 7, "micro": 2},
        {"batch_size": 8, "capacity": 12, "micro": 2},
        {"batch_size": 4, "capacity": 40, "micro": 1, "group_by_length": True},
    ],
)
def test_it_is_what_all_batches_show(settings: dict[str, Any], start: int) -> None:
    feed = made(45, **settings)
    batches = [batch for step in feed.steps(16, start=start) for batch in step]
    found = heaviest(feed, 16, start=start)
    most = max((batch.computed, batch.input_ids.shape[1]) for batch in batches)
    assert (found.batch.computed, found.batch.input_ids.shape[1]) == most
    assert found.batch.places in [b.places for b in batches if b.computed == most[0]]
    assert found.batch.supervised == max(batch.supervised for batch in batches)
    assert found.share == pytest.approx(most[0] / sum(batch.computed for batch in batches))


def test_more_is_learnt_of_it_when_another_batch_learns_more() -> None:
    store = RowStore()
    for number, (size, prompt) in enumerate(((12, 11), (9, 1), (10, 9), (3, 1)), 1):
        learnt = [False] * prompt + [True] * (size - prompt)
        store.add(Encoded(file="a", number=number, ids=[number] * size, learnt=learnt))
    rows = Rows(store, range(4))
    order = Order(rows.lengths, rows.sources, seed=5, shuffle=False)
    feed = Feed(rows=rows, order=order, batch_size=2, layout=Padded(1, 0, 512))
    found = heaviest(feed, 2).batch
    assert found.places == ["a:1"]
    assert found.supervised == 8
    assert found.learnt.tolist() == list(range(8))
    assert torch.equal(found.labels, found.input_ids)


@pytest.mark.parametrize("packing", [False, True])
def test_of_a_stream_it_is_as_large_as_one_may_be(tmp_path: Path, packing: bool) -> None:
    recipe, rows = streamed(write_jsonl(tmp_path / "a.jsonl", pairs(9)), packing=packing)
    feed = make_feed(recipe, rows.train, micro_batch_size=3, pad_id=2)
    found = heaviest(feed, 10, start=4)
    assert found.batch.input_ids.shape == (3, 64)
    assert found.batch.supervised == 3 * 63
    assert found.share == pytest.approx(3 * 64 / (6 * 4 * 64))


@pytest.mark.parametrize("layout", [Joined(3, 2, 64), Shared(3, 2, 64)])
def test_of_a_stream_in_one_sequence_nothing_is_shared(tmp_path: Path, layout: Joined) -> None:
    recipe, rows = streamed(write_jsonl(tmp_path / "a.jsonl", pairs(9)), packing=True)
    feed = make_feed(recipe, rows.train, micro_batch_size=3, pad_id=2)
    found = heaviest(replace(feed, layout=layout), 10)
    assert found.batch.input_ids.shape == (1, 3 * 64)
    assert found.batch.supervised == 3 * 63


def test_micro_batches_of_another_size_hold_the_same_rows() -> None:
    feed = made(20, batch_size=8, micro=4)
    halved, small = feed.resized(2), made(20, batch_size=8, micro=2)
    assert halved.layout.micro_batch_size == 2
    for mine, theirs in zip(halved.steps(5), small.steps(5), strict=True):
        assert [batch.places for batch in mine] == [batch.places for batch in theirs]
