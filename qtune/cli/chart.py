"""A small line chart in braille dots, two columns and four rows of dots a character."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

# bit of the dot at [column][row], the rows counted from the top of a cell
DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
BLANK = 0x2800


def chart(values: Sequence[float], *, total: int, width: int, height: int) -> list[str]:
    """`height` lines of `width` characters: the curve so far, on an axis of `total` values.

    Neighbouring points are joined by an upright stroke, so that a steep curve stays one.
    """
    columns, rows = width * 2, height * 4
    points = resample(values, max(1, round(columns * len(values) / total)))
    low, high = min(points), max(points)
    span = (high - low) or 1.0
    levels = [round((high - value) / span * (rows - 1)) for value in points]
    cells = [[BLANK] * width for _ in range(height)]
    for x, (before, here) in enumerate(pairwise([levels[0], *levels])):
        step = 1 if here >= before else -1
        for y in range(before + step if before != here else here, here + step, step):
            cells[y // 4][x // 2] |= DOTS[x % 2][y % 4]
    return ["".join(map(chr, row)) for row in cells]


def resample(values: Sequence[float], count: int) -> list[float]:
    """`count` values: means of equal shares of the given ones, or each of them repeated."""
    edges = [index * len(values) // count for index in range(count + 1)]
    return [
        sum(values[start : max(end, start + 1)]) / (max(end, start + 1) - start)
        for start, end in pairwise(edges)
    ]
