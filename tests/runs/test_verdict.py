from __future__ import annotations

import pytest

from qtune.runs.verdict import Verdict


@pytest.mark.parametrize(
    ("gate", "limit", "actual", "passed"),
    [
        ("max_loss", 1.0, 0.9, True),
        ("max_loss", 1.0, 1.0, True),
        ("max_loss", 1.0, 1.1, False),
        ("min_exact_match", 0.5, 0.5, True),
        ("min_exact_match", 0.5, 0.4, False),
        ("min_loss_drop", -0.1, -0.05, True),
        ("max_loss", 1.0, None, False),
        ("min_exact_match", 0.0, None, False),
    ],
)
def test_a_limit_is_an_upper_or_a_lower_one_by_its_name(
    gate: str, limit: float, actual: float | None, passed: bool
) -> None:
    assert Verdict(gate=gate, limit=limit, actual=actual).passed is passed


def test_it_is_told_with_gate_limit_and_actual() -> None:
    verdict = Verdict(gate="max_peak_memory", limit=2e9, actual=3_210_000_000, unit="bytes")
    assert str(verdict) == "gates.max_peak_memory: 3.21 GB, at most 2.00 GB is asked"
    missing = Verdict(gate="min_token_f1", limit=0.5, actual=None)
    assert str(missing) == "gates.min_token_f1: not measured, at least 0.5 is asked"
    assert Verdict(gate="max_wall_time", limit=60, actual=61.5, unit="seconds").to_dict() == {
        "gate": "max_wall_time",
        "limit": 60,
        "actual": 61.5,
        "unit": "seconds",
        "passed": False,
    }
