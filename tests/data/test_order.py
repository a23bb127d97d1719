"""The order of rows: pure, complete, mixed as asked."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

from qtune.data.order import Order


def order(*counts: int, lengths: Any = None, **settings: Any) -> Order:
    """An order over sources of so many rows each."""
    sources = np.repeat(np.arange(len(counts)), counts).astype(np.int32)
    sizes = np.ones(len(sources), np.int64) if lengths is None else lengths
    return Order(sizes, sources, **{"seed": 1} | settings)


def test_it_is_a_pure_function_of_seed_and_epoch() -> None:
    wanted = order(100).of(2).tolist()
    random.seed(9)
    np.random.seed(9)
    torch.manual_seed(9)
    assert order(100).of(2).tolist() == wanted
    assert sorted(wanted) == list(range(100))
    assert wanted not in [order(100).of(3).tolist(), order(100, seed=2).of(2).tolist()]
    assert order(5, shuffle=False).of(2).tolist() == [0, 1, 2, 3, 4]


def test_it_never_changes_between_versions() -> None:
    """A resumed run depends on it: numpy promises this stream for ever."""
    reference = np.random.RandomState(np.random.MT19937(np.random.SeedSequence([42, 0])))
    assert order(8, seed=42).of(0).tolist() == reference.permutation(8).tolist()


def test_round_robin_takes_a_row_of_each_in_turn_until_all_are_used() -> None:
    found = order(2, 4, mix="round_robin", shuffle=False).of(0).tolist()
    assert found == [0, 2, 1, 3, 4, 5]
    shuffled = order(50, 50, mix="round_robin")
    assert sorted(shuffled.of(1)) == list(range(100))
    assert [row >= 50 for row in shuffled.of(1)] == [False, True] * 50
    assert shuffled.of(1).tolist() != shuffled.of(2).tolist()


def test_weights_are_shares_of_every_epoch_and_every_row_comes_up() -> None:
    mixed = order(90, 10, mix="weighted", weights=(1.0, 1.0))
    epochs = [mixed.of(epoch) for epoch in range(9)]
    assert all(len(epoch) == 100 for epoch in epochs)
    assert all((epoch >= 90).sum() == 50 for epoch in epochs)
    times = Counter(int(row) for epoch in epochs for row in epoch)
    # 450 draws from 90 rows and 450 from 10: each row equally often within its source
    assert {times[row] for row in range(90)} == {5}
    assert {times[row] for row in range(90, 100)} == {45}
    halves = (epochs[0][:50] >= 90).sum()
    assert 24 <= halves <= 26


def test_weights_that_do_not_divide_still_fill_the_epoch() -> None:
    found = order(7, 3, 5, mix="weighted", weights=(0.2, 3.0, 0.31)).of(4)
    assert len(found) == 15
    assert Counter(np.repeat([0, 1, 2], [7, 3, 5])[found].tolist()) == {0: 1, 1: 13, 2: 1}


@pytest.mark.parametrize("rows", [400, 397])
def test_rows_of_like_length_come_into_one_step(rows: int) -> None:
    lengths = np.random.default_rng(0).integers(1, 1000, rows)
    grouped = order(rows, lengths=lengths, batch_size=8, group_by_length=True)
    found = grouped.of(0)
    assert sorted(found) == list(range(rows))
    assert found.tolist() != grouped.of(1).tolist()

    def wasted(numbers: Any) -> float:
        steps = [lengths[numbers[at : at + 8]] for at in range(0, rows, 8)]
        return sum(float((step.max() - step).sum()) for step in steps) / float(lengths.sum())

    assert wasted(found) < 0.1 < wasted(order(rows).of(0))
    firsts = [lengths[found[at]] for at in range(0, rows - 8, 8)]
    assert firsts != sorted(firsts)
