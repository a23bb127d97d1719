"""Best-fit packing: which rows share a sequence."""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_FULL = 0.98


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Row numbers of each sequence: the longest first, each where it leaves the least space.

    Best-fit decreasing (Johnson 1974: at most 11/9 of the optimum and 4 sequences), in
    O(n log capacity): sequences are found by the space they have left.
    """
    sequences: list[list[int]] = []
    by_space: dict[int, list[int]] = {}
    spaces: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda number: -lengths[number]):
        length = lengths[row]
        at = bisect_left(spaces, length)
        if at < len(spaces):
            space = spaces[at]
            chosen = by_space[space].pop()
            if not by_space[space]:
                del by_space[space], spaces[at]
        else:
            space, chosen = capacity, len(sequences)
            sequences.append([])
        sequences[chosen].append(row)
        left = space - length
        if left not in by_space:
            by_space[left] = []
            insort(spaces, left)
        by_space[left].append(chosen)
    return sequences


def pack_evenly(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """The fewest sequences of nearly equal length; one or two more than `pack` at most, mostly.

    Sequences of one micro-batch are padded to its longest, so equal ones waste least: not their
    number but the tokens computed cost time.
    """
    count = len(pack(lengths, capacity))
    while True:
        even = _spread(lengths, count)
        if max(sum(lengths[row] for row in rows) for rows in even) <= capacity:
            return even
        count += 1


def arranged(
    lengths: Sequence[int], sequences: Sequence[Sequence[int]], *, most: int, capacity: int
) -> list[list[int]]:
    """The rows of some sequences in as many, hence as short, ones as leave at most 2% empty.

    Attention costs a sequence's length squared, most of it masked here, so short sequences are
    cheap; where none are full enough, longer ones are, or else the fullest. Tokens and attention
    stay within those of `most` sequences of `capacity` tokens.
    """
    chosen = [row for rows in sequences for row in rows]
    best = [list(rows) for rows in sequences]
    needed = sum(lengths[row] for row in chosen)
    tokens, attention = most * capacity, most * capacity**2
    for count in range(min(len(chosen), tokens // max(lengths[row] for row in chosen)), 0, -1):
        found = [[chosen[place] for place in one] for one in _spread(_of(lengths, chosen), count)]
        computed = _computed(lengths, found)
        if computed > tokens or computed**2 > attention * count:
            continue
        full = needed >= _FULL * computed
        best = found if full else min(best, found, key=lambda one: _computed(lengths, one))
        if full:
            break
    return best


def _of(lengths: Sequence[int], rows: Sequence[int]) -> list[int]:
    return [lengths[row] for row in rows]


def _computed(lengths: Sequence[int], sequences: Sequence[Sequence[int]]) -> int:
    """Tokens of the rectangle that holds the sequences."""
    return len(sequences) * max(sum(lengths[row] for row in rows) for rows in sequences)


def _spread(lengths: Sequence[int], count: int) -> list[list[int]]:
    """Rows to `count` sequences: the longest first, each to the shortest so far (Graham 1969)."""
    heap = [(0, number) for number in range(count)]
    sequences: list[list[int]] = [[] for _ in range(count)]
    for row in sorted(range(len(lengths)), key=lambda number: -lengths[number]):
        used, number = heap[0]
        heapq.heapreplace(heap, (used + lengths[row], number))
        sequences[number].append(row)
    return sequences
