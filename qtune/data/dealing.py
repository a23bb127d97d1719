"""Which rows of a step each of several processes computes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from qtune.ranks import ALONE, Seat

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from qtune.data.batch import Batch
    from qtune.data.feed import Layout
    from qtune.data.rows import EncodedRow


def dealt(lengths: Sequence[int], hands: int) -> list[list[int]]:
    """The numbers of the rows of each hand, in order: nearly as many rows, and nearly as many
    tokens, for each. The step's loss is a sum over all of them, so who has which is all one.

    The longest first to whoever has fewest tokens (Graham 1969), while there is room in the hand.
    """
    if hands == 1:
        return [list(range(len(lengths)))]
    found: list[list[int]] = [[] for _ in range(hands)]
    tokens = [0] * hands
    most, full = divmod(len(lengths), hands)  # so many hands have one more
    for number in sorted(range(len(lengths)), key=lambda number: -lengths[number]):
        filled = sum(len(hand) > most for hand in found)
        limit = most + (filled < full)
        open_hands = [hand for hand in range(hands) if len(found[hand]) < limit]
        lightest = min(open_hands, key=lambda hand: (tokens[hand], hand))
        found[lightest].append(number)
        tokens[lightest] += lengths[number]
    return [sorted(hand) for hand in found]


@dataclass(frozen=True)
class Hand:
    """The part of every step's rows that one process computes: all of them where it is alone.

    `in_step`: each process makes as many micro-batches as any other, idle ones if need be, for
    their passes wait for one another.
    """

    seat: Seat = ALONE.seat
    in_step: bool = False

    def batches(
        self, layout: Layout, rows: Sequence[EncodedRow], lengths: Sequence[int]
    ) -> list[Batch]:
        """The micro-batches of its rows of a step, in memory that a GPU reads by itself where there
        is one."""
        hands = dealt(lengths, self.seat.size)
        own = _numbers(layout, lengths, hands[self.seat.rank])
        found = [layout.batch(rows, sequences) for sequences in own]
        if self.in_step:
            passes = max(len(_numbers(layout, lengths, hand)) for hand in hands)
            idle = found[-1] if found else layout.batch(rows, [[0]])
            found += [idle.idled()] * (passes - len(found))
        return [batch.pinned() for batch in found] if torch.cuda.is_available() else found

    def everyones(self, layout: Layout, lengths: Sequence[int]) -> Iterator[list[list[int]]]:
        """Each micro-batch of a step, whoever has it: the rows of its sequences, by their place in
        the step."""
        for hand in dealt(lengths, self.seat.size):
            yield from _numbers(layout, lengths, hand)


def _numbers(layout: Layout, lengths: Sequence[int], hand: Sequence[int]) -> list[list[list[int]]]:
    """As of a layout, for the rows in a hand; the last step of an epoch may leave it empty."""
    found = layout.numbers([lengths[number] for number in hand]) if hand else []
    return [[[hand[number] for number in one] for one in each] for each in found]


WHOLE = Hand()
