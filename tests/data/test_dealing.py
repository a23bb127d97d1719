"""The rows of a step are all dealt, evenly, and passes that wait for one another are as many."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest
import torch

from qtune.data.dealing import Hand, dealt
from qtune.data.feed import Packed, Padded
from qtune.data.rows import EncodedRow
from qtune.ranks import Seat

if TYPE_CHECKING:
    from qtune.data.feed import Layout

LAYOUTS: dict[str, Layout] = {
    "padded": Padded(2, pad_id=0, longest=64),
    "packed": Packed(1, pad_id=0, capacity=64),
}


def _rows(lengths: list[int]) -> list[EncodedRow]:
    return [
        EncodedRow([number + 1] * length, [number + 1] * length, place=f"rows:{number}")
        for number, length in enumerate(lengths)
    ]


@pytest.mark.parametrize("hands", [1, 2, 3, 5])
def test_every_row_is_in_one_hand(hands: int) -> None:
    random = Random(hands)
    for count in range(1, 40):
        lengths = [random.randint(1, 60) for _ in range(count)]
        found = dealt(lengths, hands)
        assert len(found) == hands
        assert sorted(row for hand in found for row in hand) == list(range(count))
        assert all(hand == sorted(hand) for hand in found)
        sizes = [len(hand) for hand in found]
        assert max(sizes) - min(sizes) <= 1
        tokens = [sum(lengths[row] for row in hand) for hand in found]
        assert max(tokens) - min(tokens) <= max(lengths)  # no worse than one row


def test_one_hand_keeps_the_order() -> None:
    assert dealt([3, 9, 1], 1) == [[0, 1, 2]]


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("count", [1, 2, 5, 9])
def test_passes_that_wait_for_one_another_are_as_many(name: str, count: int) -> None:
    random = Random(count)
    lengths = [random.randint(2, 60) for _ in range(count)]
    rows, layout = _rows(lengths), LAYOUTS[name]
    hands = [Hand(Seat(rank, 3), in_step=True).batches(layout, rows, lengths) for rank in range(3)]
    assert len({len(batches) for batches in hands}) == 1
    real = [batch for batches in hands for batch in batches if not batch.idle]
    assert sorted(place for batch in real for place in batch.places) == sorted(
        row.place for row in rows
    )
    idle = [batch for batches in hands for batch in batches if batch.idle]
    assert all((batch.supervised, batch.tokens, batch.places) == (0, 0, []) for batch in idle)
    assert sum(batch.supervised for batch in real) == sum(length - 1 for length in lengths)


def test_a_hand_may_be_empty_where_nobody_waits() -> None:
    rows = _rows([5])
    hands = [Hand(Seat(rank, 2)).batches(LAYOUTS["padded"], rows, [5]) for rank in range(2)]
    assert [len(batches) for batches in hands] == [1, 0]
    assert torch.equal(hands[0][0].input_ids, torch.ones(1, 5, dtype=torch.int64))
