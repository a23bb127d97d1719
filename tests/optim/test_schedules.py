"""Schedules against their formulas, at the steps that matter."""

from __future__ import annotations

import math

import pytest

from qtune.optim import schedule
from qtune.recipe.steps import OptimSection


def _factors(total: int, warmup: int, **settings: object) -> list[float]:
    section = OptimSection.model_validate(settings)
    factor = schedule(section, total_steps=total, warmup_steps=warmup)
    return [factor(step) for step in range(total)]


def test_constant_really_warms_up() -> None:
    factors = _factors(8, 3)
    assert factors == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1, 1, 1])


def test_linear_ends_on_its_floor() -> None:
    factors = _factors(6, 1, lr_scheduler_type="linear", min_lr_ratio=0.2)
    assert factors == pytest.approx([0.5, 1.0, 0.8, 0.6, 0.4, 0.2])


def test_cosine_is_half_way_in_the_middle() -> None:
    factors = _factors(5, 0, lr_scheduler_type="cosine", min_lr_ratio=0.1)
    halves = [0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * step / 4)) for step in range(5)]
    assert factors == pytest.approx(halves)
    assert factors[2] == pytest.approx(0.55)


@pytest.mark.parametrize("kind", ["constant", "linear", "cosine"])
@pytest.mark.parametrize(("total", "warmup"), [(1, 0), (1, 1), (2, 5), (3, 3)])
def test_short_runs_stay_between_zero_and_the_peak(kind: str, total: int, warmup: int) -> None:
    assert all(0 <= factor <= 1 for factor in _factors(total, warmup, lr_scheduler_type=kind))
