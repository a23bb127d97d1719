"""Rows held out of the training rows, as a pure function of their content and the seed."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from typing import TYPE_CHECKING

from qtune.errors import DataError, UsageError
from qtune.plan.rows import held_out_rows

if TYPE_CHECKING:
    from qtune.data.rows import Rows


def hold_out(rows: Rows, val_size: float, *, seed: int) -> tuple[Rows, Rows]:
    """Training and held-out rows; equal rows go to the same side, so no row is in both."""
    wanted = _count(val_size, len(rows))
    groups: dict[bytes, list[int]] = defaultdict(list)
    for number in range(len(rows)):
        groups[rows.digest(number)].append(number)
    salt = seed.to_bytes(8, "big")
    order = sorted(groups, key=lambda digest: hashlib.blake2b(salt + digest).digest())
    held: set[int] = set()
    for digest in order:
        if len(held) + len(groups[digest]) <= wanted:
            held.update(groups[digest])
        if len(held) == wanted:
            break
    if not held:
        raise DataError(f"data.val_size {val_size:g}: equal rows cannot be told apart")
    kept = [number for number in range(len(rows)) if number not in held]
    return rows.take(kept), rows.take(sorted(held))


def shared_rows(train: Rows, held: Rows) -> int:
    """How many held-out rows are training rows too."""
    seen = {train.digest(number) for number in range(len(train))}
    return sum(held.digest(number) in seen for number in range(len(held)))


def _count(val_size: float, rows: int) -> int:
    """A share below 1 or a whole number as a count that leaves rows on both sides."""
    if val_size >= 1 and not float(val_size).is_integer():
        raise UsageError("a share below 1 or a whole number is needed", place="data.val_size")
    count = held_out_rows(val_size, rows)
    if count >= rows:
        raise DataError(
            f"data.val_size {val_size:g} leaves no training row of {rows}",
            hint="hold out fewer rows",
        )
    return count
