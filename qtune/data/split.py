"""Rows held out of the training rows, as a pure function of their content and the seed."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from qtune.data.duplicates import identities
from qtune.errors import DataError, UsageError
from qtune.plan.rows import held_out_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qtune.data.rows import Rows

    Numbers = NDArray[np.int64]


def hold_out(rows: Rows, val_size: float, *, seed: int, grouped: bool = False) -> tuple[Rows, Rows]:
    """Training and held-out rows; equal rows go to the same side, so no row is in both.

    `grouped`: rows with an equal value of data.split_by stay together too.
    """
    wanted = _count(val_size, len(rows))
    digests = rows.digests
    equal = identities(digests)
    sets = _joined(equal, rows.groups) if grouped else equal
    sizes = np.bincount(sets)
    held: list[int] = []
    room = wanted
    for one in _drawn(sets, digests, seed).tolist():
        if sizes[one] <= room:
            held.append(one)
            room -= int(sizes[one])
        if not room:
            break
    if not held:
        raise DataError(
            f"data.val_size {val_size:g} asks for {wanted} rows, but the smallest set of rows that "
            f"belong together has {sizes.min()}",
            hint="hold out more, or split by another column" if grouped else "remove equal rows",
        )
    chosen = np.isin(sets, held)
    return rows.take(np.flatnonzero(~chosen)), rows.take(np.flatnonzero(chosen))


def _drawn(sets: Numbers, digests: NDArray[np.uint64], seed: int) -> Numbers:
    """The sets in an order that depends on the seed and the content of their rows alone."""
    by_content = np.lexsort((digests[:, 1], digests[:, 0], sets))
    firsts = by_content[np.unique(sets[by_content], return_index=True)[1]]
    salt = seed.to_bytes(8, "big")
    hashes = (hashlib.blake2b(salt + digests[first].tobytes()).digest() for first in firsts)
    words = np.frombuffer(b"".join(one[:16] for one in hashes), ">u8").reshape(-1, 2)
    return np.lexsort((words[:, 1], words[:, 0]))


def _joined(equal: Numbers, groups: NDArray[np.uint64]) -> Numbers:
    """For each row the number of its set, when equal rows and equal groups belong together.

    Each row takes the smallest row number among its equals, then in its group, then that row's
    own, until nothing changes.
    """
    by_group = np.unique(groups, return_inverse=True)[1]
    least = np.arange(len(equal))
    while True:
        before = least
        for parts in (equal, by_group):
            smallest = np.full(int(parts.max()) + 1, len(least))
            np.minimum.at(smallest, parts, least)
            least = smallest[parts]
        least = least[least]
        if np.array_equal(least, before):
            return np.unique(least, return_inverse=True)[1]


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
