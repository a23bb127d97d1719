from __future__ import annotations

import math
from typing import Any

import pytest

from qtune.recipe.scalars import scalar


# The rows are the examples of the YAML 1.2.2 specification, section 10.3, and known traps of 1.1.
@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("null", None),
        ("~", None),
        ("true", True),
        ("FALSE", False),
        ("0", 0),
        ("0o7", 7),
        ("0x3A", 58),
        ("-19", -19),
        ("0.", 0.0),
        ("-0.0", 0.0),
        (".5", 0.5),
        ("+12e03", 12000.0),
        ("-2E+05", -200000.0),
        (".inf", math.inf),
        ("-.Inf", -math.inf),
        ("2e-4", 2e-4),
        ("1e-5", 1e-5),
        ("010", 10),
        ("0o17", 15),
        ("0x1f", 31),
        *[(word, word) for word in ("no", "on", "yes", "off", "y", "1_000", "1:30", "0b1")],
        *[(word, word) for word in ("2026-01-01", "nULL", "tRue", "e5", ".", "-", "1e", "٣")],
        ("9" * 5000, "9" * 5000),
    ],
)
def test_core_schema(text: str, value: Any) -> None:
    assert scalar(text) == value
    assert type(scalar(text)) is type(value)


def test_not_a_number() -> None:
    assert math.isnan(scalar(".NaN"))  # type: ignore[arg-type]
