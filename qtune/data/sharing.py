"""Rows of one sequence that begin with the same tokens, so that those are computed once.

In a causal model the keys, values and hidden states of a row's first tokens do not depend on what
follows: one pass over them serves all rows that begin so, and the gradients add up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from qtune.data.rows import IGNORED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qtune.data.rows import EncodedRow

LEAST = 8  # tokens; what is shorter is not worth a second way through the attention


class Group(NamedTuple):
    """Rows by their number, and how many of their first tokens they have in common."""

    rows: tuple[int, ...]
    shared: int


def groups(rows: Sequence[EncodedRow]) -> list[Group]:
    """Every row in one group, those that share nothing alone; the most tokens saved."""
    heads = [row.input_ids[: shareable(row)] for row in rows]
    return _best(list(range(len(rows))), heads)


def _best(rows: list[int], heads: Sequence[Sequence[int]]) -> list[Group]:
    """All rows as one group, or apart by the first token in which they differ."""
    if len(rows) == 1:
        return [Group((rows[0],), 0)]
    common = _common([heads[number] for number in rows])
    by_next: dict[int | tuple[int], list[int]] = {}
    for number in rows:
        head = heads[number]
        # a head that ends here shares no more with anybody
        following = head[common] if len(head) > common else (number,)
        by_next.setdefault(following, []).append(number)
    apart = [group for chosen in by_next.values() for group in _best(chosen, heads)]
    together = Group(tuple(rows), common)
    return [together] if common >= LEAST and saved([together]) >= saved(apart) else apart


def shareable(row: EncodedRow) -> int:
    """How many of a row's first tokens may be shared: none that predicts a label of the row."""
    first = next((at for at, label in enumerate(row.labels[1:], 1) if label != IGNORED), None)
    return max(0, (len(row.input_ids) if first is None else first) - 1)


def saved(found: Sequence[Group]) -> int:
    """Tokens that are not computed again."""
    return sum(group.shared * (len(group.rows) - 1) for group in found)


def _common(heads: Sequence[Sequence[int]]) -> int:
    """Length of the longest beginning that all have."""
    shortest = min(map(len, heads))
    first = heads[0]
    return next(
        (at for at in range(shortest) if any(head[at] != first[at] for head in heads[1:])), shortest
    )


def mask_of(length: int, spans: Sequence[tuple[int, int, int, int]]) -> torch.Tensor:
    """Boolean [1, 1, T, T]: who sees whom. A span (begin, end, prefix_begin, prefix_end) sees its
    prefix whole, and of itself what came before."""
    seen = torch.zeros(length, length, dtype=torch.bool)
    for begin, end, prefix_begin, prefix_end in spans:
        size = end - begin
        seen[begin:end, begin:end] = torch.ones(size, size, dtype=torch.bool).tril()
        seen[begin:end, prefix_begin:prefix_end] = True
    return seen[None, None]
