"""A small line chart in braille dots, two columns and four rows of dots a character."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

# bit of the dot at [column][row], the rows counted from the top of a cell
DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
BLANK = 0x2800


def chart(values: Sequence[float], *, width: int, height: int) -> list[str]:
    """Lines of text, `height` of them: the curve of all values squeezed into `width` characters."""
    columns, rows = width * 2, height * 4
    points = resample(values, columns)
    low, high = min(points), max(points)
    span = (high - low) or 1.0
    cells = [[BLANK] * width for _ in range(height)]
    for x, value in enumerate(points):
        y = round((high - value) / span * (rows - 1))
        cells[y // 4][x // 2] |= DOTS[x % 2][y % 4]
    return ["".join(map(chr, row)) for row in cells]


def resample(values: Sequence[float], count: int) -> list[float]:
    """At most `count` values: each the mean of an equal share of the given ones."""
    if len(values) <= count:
        return list(values)
    edges = [round(index * len(values) / count) for index in range(count + 1)]
    return [sum(values[start:end]) / (end - start) for start, end in itertools.pairwise(edges)]
