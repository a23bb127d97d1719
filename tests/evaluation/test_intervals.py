"""Bootstrap intervals against a straight-line reference and against theory."""

from __future__ import annotations

import random

import numpy as np
import pytest

from qtune.evaluation.intervals import mean_interval, ratio_interval


def reference(
    sums: list[float], counts: list[float], *, seed: int, draws: int
) -> tuple[float, float]:
    """One draw at a time, one row at a time."""
    generator = np.random.default_rng(seed)
    ratios = []
    for _ in range(draws):
        rows = [int(index) for index in generator.integers(0, len(sums), size=len(sums))]
        ratios.append(sum(sums[row] for row in rows) / sum(counts[row] for row in rows))
    ratios.sort()

    def percentile(share: float) -> float:
        place = share * (draws - 1)
        below = int(place)
        above = min(below + 1, draws - 1)
        return ratios[below] + (place - below) * (ratios[above] - ratios[below])

    return percentile(0.025), percentile(0.975)


def test_equals_the_straight_line_reference() -> None:
    source = random.Random(3)
    counts = [float(source.randint(1, 40)) for _ in range(37)]
    sums = [count * source.uniform(0.5, 4.0) for count in counts]
    low, high = reference(sums, counts, seed=11, draws=400)
    interval = ratio_interval(sums, counts, seed=11, draws=400)
    assert interval.low == pytest.approx(low, abs=1e-12)
    assert interval.high == pytest.approx(high, abs=1e-12)


def test_tokens_weigh_the_rows() -> None:
    # one long row of loss 1 and one short row of loss 9: the ratio is 1.08, the row mean 5
    interval = ratio_interval([99.0, 9.0], [99.0, 1.0], seed=0)
    assert interval.low == pytest.approx(1.0)
    assert interval.high == pytest.approx(9.0)
    assert mean_interval([2.0] * 5).low == mean_interval([2.0] * 5).high == 2.0


def test_the_interval_shrinks_with_the_root_of_the_rows() -> None:
    source = random.Random(1)
    values = [source.gauss(0, 1) for _ in range(1600)]
    wide, narrow = mean_interval(values[:100]), mean_interval(values)
    assert (wide.high - wide.low) / (narrow.high - narrow.low) == pytest.approx(4, rel=0.25)


def test_covers_the_truth_about_as_often_as_it_says() -> None:
    source = random.Random(7)
    covered = 0
    for trial in range(200):
        interval = mean_interval([source.gauss(1.0, 2.0) for _ in range(60)], seed=trial)
        covered += interval.low <= 1.0 <= interval.high
    assert 0.90 <= covered / 200 <= 0.99


def test_a_large_set_is_drawn_in_pieces_with_the_same_result(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = [float(index % 7) for index in range(50)]
    whole = mean_interval(values, seed=5)
    monkeypatch.setattr("qtune.evaluation.intervals._CHUNK_ELEMENTS", 130)
    assert mean_interval(values, seed=5) == whole


def test_rows_without_tokens_do_not_break_it() -> None:
    interval = ratio_interval([0.0, 4.0], [0.0, 2.0], seed=2)
    assert interval.low == interval.high == 2.0
