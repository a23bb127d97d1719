"""Equal rows found by sorting hashes are those that a plain comparison finds."""

from __future__ import annotations

import random

import numpy as np
import pytest

from qtune.data import Rows
from qtune.data.duplicates import identities, repeated, shared, without
from qtune.data.rows import Encoded, RowStore


def drawn(count: int, seed: int) -> Rows:
    generator = random.Random(seed)
    store = RowStore()
    for number in range(count):
        ids = [generator.randint(0, 2) for _ in range(generator.randint(1, 4))]
        learnt = [generator.random() < 0.5 for _ in ids]
        store.add(Encoded(file="a", number=number + 1, ids=ids, learnt=learnt))
    return Rows(store, range(count))


def content(rows: Rows) -> list[tuple[int, ...]]:
    return [(*row.input_ids, -7, *row.labels) for row in rows]


@pytest.mark.parametrize("seed", range(5))
def test_equal_rows_are_found(seed: int) -> None:
    rows, others = drawn(60, seed), drawn(25, seed + 100)
    mine, theirs = content(rows), content(others)
    assert repeated(rows).tolist() == [n for n, one in enumerate(mine) if one in mine[:n]]
    assert shared(rows, others).tolist() == [n for n, one in enumerate(mine) if one in theirs]
    kept = content(without(rows, repeated(rows)))
    assert kept == list(dict.fromkeys(mine))
    numbers = identities(rows.digests)
    assert [[a == b for b in numbers] for a in numbers] == [[a == b for b in mine] for a in mine]


def test_none_is_shared_with_nothing() -> None:
    rows = drawn(5, 0)
    assert shared(rows, rows[:0]).tolist() == []
    assert len(without(rows, np.zeros(0, dtype=np.int64))) == 5


def test_learnt_tokens_are_counted() -> None:
    rows = drawn(30, 3)
    expected = [sum(label != -100 for label in row.labels) for row in rows]
    assert rows.supervised.tolist() == expected
    assert rows.take([4, 2]).supervised.tolist() == [expected[4], expected[2]]
