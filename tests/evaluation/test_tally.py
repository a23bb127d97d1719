"""Intervals and p-values against closed forms, the plain bootstrap and sacrebleu's own test."""

from __future__ import annotations

import math

import numpy as np
import pytest

from qtune.evaluation.intervals import mean_interval, ratio_interval
from qtune.evaluation.tally import mean_tally, ratio_tally


def mcnemar(ours: list[float], theirs: list[float]) -> float:
    """Exact two-sided McNemar: a fair coin over the rows on which the models differ."""
    pairs = list(zip(ours, theirs, strict=True))
    won, lost = pairs.count((1.0, 0.0)), pairs.count((0.0, 1.0))
    both = won + lost
    tail = sum(math.comb(both, k) for k in range(min(won, lost) + 1)) / 2**both
    return min(1.0, 2 * tail)


def right(random: np.random.Generator, share: float, rows: int = 60) -> list[float]:
    return [float(value) for value in random.random(rows) < share]


@pytest.mark.parametrize(("ours", "theirs"), [(0.8, 0.4), (0.6, 0.5), (0.5, 0.5)])
def test_right_and_wrong_rows_as_mcnemar(ours: float, theirs: float) -> None:
    random = np.random.default_rng(3)
    a, b = right(random, ours), right(random, theirs)
    found = mean_tally(a).beyond(mean_tally(b), "accuracy")
    exact = mcnemar(a, b)
    spread = 4 * math.sqrt(exact * (1 - exact) / 2000) + 1 / 2000
    assert found["accuracy_p"] == pytest.approx(exact, abs=spread)
    assert found["accuracy"] == pytest.approx(np.mean(a) - np.mean(b))
    assert found["accuracy_low"] <= found["accuracy"] <= found["accuracy_high"]


def test_a_paired_shift_as_the_normal_law_has_it() -> None:
    random = np.random.default_rng(0)
    base = random.normal(size=400)
    moved = random.normal(0.1, 1.0, size=400)
    found = mean_tally(base + moved).beyond(mean_tally(base), "loss")
    score = abs(moved.mean()) / (np.sqrt((moved**2).mean()) / 20)
    assert found["loss_p"] == pytest.approx(math.erfc(score / math.sqrt(2)), abs=0.02)
    wide = 1.96 * moved.std() / 20
    assert found["loss_low"] == pytest.approx(moved.mean() - wide, abs=0.02)
    assert found["loss_high"] == pytest.approx(moved.mean() + wide, abs=0.02)


def test_equal_models_differ_by_nothing() -> None:
    tally = mean_tally([0.0, 1.0, 1.0])
    assert tally.beyond(tally, "x") == {"x": 0.0, "x_low": 0.0, "x_high": 0.0, "x_p": 1.0}


def test_intervals_are_those_of_the_plain_bootstrap() -> None:
    random = np.random.default_rng(1)
    sums, counts = random.exponential(size=80), random.integers(1, 30, size=80).astype(float)
    plain = ratio_interval(list(sums), list(counts))
    drawn = ratio_tally(list(sums), list(counts)).interval()
    assert drawn.low == pytest.approx(plain.low, rel=0.03)
    assert drawn.high == pytest.approx(plain.high, rel=0.03)
    values = [float(one) for one in random.random(50)]
    assert mean_tally(values).interval().low == pytest.approx(mean_interval(values).low, abs=0.02)
    assert mean_tally(values).interval() == mean_tally(values).interval()
