"""A measure as sums over rows: its value, its interval, and how sure a difference is.

Loss, accuracy and BLEU alike are a function of sums over rows. The interval is the percentile
bootstrap (Efron and Tibshirani 1993); the p-value that of approximate randomisation: as often as
chance alone, by exchanging the two models' rows at random, makes a difference as large (Noreen
1989). For rows that are right or wrong this is McNemar's test, for BLEU that of sacrebleu.
N rows, K sums, D draws.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from qtune.evaluation.intervals import DRAWS, LEVEL, Interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

EXCHANGES = 2000
_ROUNDING = 1e-12  # sums in another order are no other difference
Score = Callable[["Floats"], "Floats"]


@dataclass(frozen=True, eq=False)
class Tally:
    """Sums of each row [N, K], and the measure of summed rows: [D, K] -> [D]."""

    sums: Floats
    score: Score

    @property
    def value(self) -> float:
        """The measure of all rows."""
        return float(self.score(self.sums.sum(axis=0, keepdims=True))[0])

    @property
    def by_row(self) -> list[float]:
        """The measure of each row by itself."""
        return [float(value) for value in self.score(self.sums)]

    def interval(self, *, seed: int = 0) -> Interval:
        """Where the measure would be with other rows."""
        return _middle(self.score(_drawn(self.sums, seed)))

    def figures(self, name: str) -> dict[str, float]:
        """The value and the ends of its interval, by name."""
        interval = self.interval()
        return {name: self.value, f"{name}_low": interval.low, f"{name}_high": interval.high}

    def beyond(self, other: Tally, name: str, *, seed: int = 0) -> dict[str, float]:
        """This minus another model's on the same rows: with its interval and p-value, by name."""
        assert self.sums.shape == other.sums.shape, "a paired difference needs the same rows"
        moved_D = self.score(_drawn(self.sums, seed)) - self.score(_drawn(other.sums, seed))
        interval = _middle(moved_D)
        return {
            name: self.value - other.value,
            f"{name}_low": interval.low,
            f"{name}_high": interval.high,
            f"{name}_p": self._chance(other, seed=seed),
        }

    def _chance(self, other: Tally, *, seed: int) -> float:
        """How often exchanged rows differ as much; between 1 / (EXCHANGES + 1) and 1."""
        random = np.random.default_rng(seed)
        ours, gap_NK = self.sums.sum(axis=0), other.sums - self.sums
        swapped_DK = np.stack(
            [random.integers(0, 2, size=len(gap_NK)) @ gap_NK for _ in range(EXCHANGES)]
        )
        theirs = other.sums.sum(axis=0)
        found_D = self.score(ours + swapped_DK) - self.score(theirs - swapped_DK)
        as_large = np.abs(found_D) >= abs(self.value - other.value) - _ROUNDING
        return float((1 + as_large.sum()) / (1 + EXCHANGES))


def mean_tally(values: Sequence[float]) -> Tally:
    """The mean of one number a row."""
    return ratio_tally(values, [1.0] * len(values))


def ratio_tally(sums: Sequence[float], counts: Sequence[float]) -> Tally:
    """sum(sums) / sum(counts); rows without a count are left out of what they cannot tell."""
    pairs_N2 = np.stack([np.asarray(sums, dtype=np.float64), np.asarray(counts)], axis=1)
    return Tally(pairs_N2, _ratio)


def _ratio(sums_DK: Floats) -> Floats:
    tops, bottoms = sums_DK[:, 0], sums_DK[:, 1]
    return np.divide(tops, bottoms, out=np.zeros_like(tops), where=bottoms > 0)


def _drawn(rows_NK: Floats, seed: int) -> Floats:
    """Sums of DRAWS draws of N rows with replacement [D, K]; one seed draws the same rows."""
    random, size = np.random.default_rng(seed), len(rows_NK)
    counts = (
        np.bincount(random.integers(0, size, size=size), minlength=size) for _ in range(DRAWS)
    )
    return np.stack([count @ rows_NK for count in counts])


def _middle(values_D: Floats) -> Interval:
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(values_D, [tail, 100 - tail])
    return Interval(low=float(low), high=float(high))
