"""Equal rows: within the training rows, and between training and evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qtune.data.rows import Rows


def repeated(rows: Rows) -> list[int]:
    """The numbers of rows whose tokens and mask equal those of an earlier row."""
    seen: set[bytes] = set()
    found = []
    for number in range(len(rows)):
        digest = rows.digest(number)
        if digest in seen:
            found.append(number)
        seen.add(digest)
    return found


def shared(rows: Rows, others: Rows) -> list[int]:
    """The numbers of rows that stand among the others too."""
    seen = {others.digest(number) for number in range(len(others))}
    return [number for number in range(len(rows)) if rows.digest(number) in seen]


def without(rows: Rows, numbers: list[int]) -> Rows:
    """The rows but for some numbers."""
    gone = set(numbers)
    return rows.take([number for number in range(len(rows)) if number not in gone])
