"""Rows held out of the training rows, as a pure function of their content and the seed."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from typing import TYPE_CHECKING

from qtune.errors import DataError, UsageError
from qtune.plan.rows import held_out_rows

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from qtune.data.rows import Rows


def hold_out(rows: Rows, val_size: float, *, seed: int, grouped: bool = False) -> tuple[Rows, Rows]:
    """Training and held-out rows; equal rows go to the same side, so no row is in both.

    `grouped`: rows with an equal value of data.split_by stay together too.
    """
    wanted = _count(val_size, len(rows))
    parts = _together(rows, grouped=grouped)
    salt = seed.to_bytes(8, "big")
    order = sorted(parts, key=lambda name: hashlib.blake2b(salt + name).digest())
    held: set[int] = set()
    for name in order:
        if len(held) + len(parts[name]) <= wanted:
            held.update(parts[name])
        if len(held) == wanted:
            break
    if not held:
        smallest = min(len(part) for part in parts.values())
        raise DataError(
            f"data.val_size {val_size:g} asks for {wanted} rows, but the smallest set of rows that "
            f"belong together has {smallest}",
            hint="hold out more, or split by another column" if grouped else "remove equal rows",
        )
    kept = [number for number in range(len(rows)) if number not in held]
    return rows.take(kept), rows.take(sorted(held))


def _together(rows: Rows, *, grouped: bool) -> dict[bytes, list[int]]:
    """Row numbers that must not be parted, under a name that depends on their content alone."""
    digests = [rows.digest(number) for number in range(len(rows))]
    names: Iterable[Hashable] = digests
    if grouped:
        names = _joined(digests, rows.groups.tolist())
    members: dict[Hashable, list[int]] = defaultdict(list)
    for number, name in enumerate(names):
        members[name].append(number)
    return {min(digests[number] for number in part): part for part in members.values()}


def _joined(digests: list[bytes], groups: list[int]) -> list[int]:
    """For each row the number of its set, when equal rows and equal groups belong together."""
    parent = list(range(len(digests)))

    def root(number: int) -> int:
        while parent[number] != number:
            parent[number] = parent[parent[number]]
            number = parent[number]
        return number

    for values in (digests, groups):
        first: dict[Hashable, int] = {}
        for number, value in enumerate(values):
            other = first.setdefault(value, number)
            parent[root(number)] = root(other)
    return [root(number) for number in range(len(parent))]


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
