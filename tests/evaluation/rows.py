"""Rows made by hand."""

from __future__ import annotations

from qtune.data import Rows
from qtune.data.rows import Encoded, RowStore


def rows_of(*lengths: tuple[int, int], first: int = 10) -> Rows:
    """One row for each (prompt tokens, answer tokens); only the answer is learnt."""
    store = RowStore()
    for number, (prompt, answer) in enumerate(lengths):
        size = prompt + answer
        store.add(
            Encoded(
                file="hand.jsonl",
                number=number + 1,
                ids=[first + (number * 31 + step * 7) % 250 for step in range(size)],
                learnt=[False] * prompt + [True] * answer,
                prompt_length=prompt,
                answer="x" * answer,
            )
        )
    return Rows(store, range(len(store)))
