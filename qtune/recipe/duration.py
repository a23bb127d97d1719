"""Lengths of time as people write them: 90s, 30m, 5h30m, 2d."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

_UNITS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
_PATTERN = "".join(rf"(?:([0-9]+(?:\.[0-9]+)?){unit})?" for unit in _UNITS)


def seconds(text: str) -> float:
    """The seconds of a length of time; ValueError for anything else, and for none at all."""
    found = re.fullmatch(_PATTERN, text.replace(" ", ""))
    parts = found.groups(default="0") if found else ()
    total = sum(float(part) * unit for part, unit in zip(parts, _UNITS.values(), strict=False))
    if total <= 0:
        raise ValueError("is not a length of time such as 90s, 30m or 5h30m")
    return total


def _duration(value: Any) -> Any:
    if isinstance(value, str):
        seconds(value)
        return value
    raise ValueError("is not a length of time such as 90s, 30m or 5h30m")


Duration = Annotated[str, BeforeValidator(_duration), Field(pattern=f"^{_PATTERN}$")]
