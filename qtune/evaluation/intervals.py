"""Bootstrap intervals over rows: how far a measure would move with other held-out rows.

Efron and Tibshirani (1993), percentile interval. A row is the unit that is drawn, because the
tokens of one row are not independent of each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

DRAWS = 1000
LEVEL = 0.95
_CHUNK_ELEMENTS = 4_000_000  # row indices in memory at a time (32 MB)


@dataclass(frozen=True)
class Interval:
    """The middle `LEVEL` of the bootstrap distribution."""

    low: float
    high: float


def ratio_interval(
    sums: Sequence[float],
    counts: Sequence[float],
    *,
    seed: int = 0,
    draws: int = DRAWS,
    level: float = LEVEL,
) -> Interval:
    """Interval of sum(sums) / sum(counts) over rows drawn with replacement; counts weigh the rows.

    Two calls with the same seed and number of rows draw the same rows, so that the interval of a
    difference is that of the row-wise differences.
    """
    tops, bottoms = np.asarray(sums, dtype=np.float64), np.asarray(counts, dtype=np.float64)
    assert tops.shape == bottoms.shape, "one count for each sum"
    assert tops.ndim == 1, "one number a row"
    assert len(tops) > 0, "an interval needs rows"
    ratios = _ratios(tops, bottoms, seed=seed, draws=draws)
    tail = 100 * (1 - level) / 2
    low, high = np.percentile(ratios, [tail, 100 - tail])
    return Interval(low=float(low), high=float(high))


def mean_interval(values: Sequence[float], *, seed: int = 0) -> Interval:
    """Interval of the mean over rows."""
    return ratio_interval(values, [1.0] * len(values), seed=seed)


def _ratios(
    tops: np.ndarray, bottoms: np.ndarray, *, seed: int, draws: int
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """`draws` ratios; a draw without any token (all its rows empty) is left out."""
    random = np.random.default_rng(seed)
    rows = len(tops)
    chunk = max(1, _CHUNK_ELEMENTS // rows)
    above, below = [], []
    for start in range(0, draws, chunk):
        drawn = random.integers(0, rows, size=(min(chunk, draws - start), rows))
        above.append(tops[drawn].sum(axis=1))
        below.append(bottoms[drawn].sum(axis=1))
    numerator, denominator = np.concatenate(above), np.concatenate(below)
    usable = denominator > 0
    ratios: np.ndarray[tuple[int, ...], np.dtype[np.float64]] = (
        numerator[usable] / denominator[usable]
    )
    return ratios
