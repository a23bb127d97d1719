"""Sizes in bytes, read and written the way people say them."""

from __future__ import annotations

import re

from qtune.errors import UsageError

_UNITS = {
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([a-z]*)", re.IGNORECASE | re.ASCII)


def parse_size(text: str, *, place: str = "") -> int:
    """Bytes of "48GB" (10^9) or "24GiB" (2^30); `UsageError` otherwise, also without a unit."""
    match = _SIZE.fullmatch(text.strip())
    unit = _UNITS.get(match[2].lower()) if match else None
    if match is None or unit is None or float(match[1]) * unit < 1:
        raise UsageError(
            f"{text!r} is not a size", place=place, hint="write it like 48GB, 24GiB or 800MB"
        )
    return int(float(match[1]) * unit)


def human(size: int) -> str:
    """Three digits and a decimal unit: 38.9 GB, 271 MB, 0 B."""
    value, unit = float(abs(size)), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 999.5:
            break
        value, unit = value / 1000, larger
    digits = 0 if unit == "B" or value >= 99.95 else 1 if value >= 9.995 else 2
    return f"{'-' if size < 0 else ''}{value:.{digits}f} {unit}"


def duration(seconds: float) -> str:
    """Two digits and a unit: 41 ms, 3.1 s, 4.5 min, 2.1 h, 3.4 days."""
    for size, unit in ((86_400, "days"), (3600, "h"), (60, "min"), (1, "s")):
        if abs(seconds) >= 1.5 * size or (unit == "s" and abs(seconds) >= 1):
            value = seconds / size
            return f"{value:.0f} {unit}" if abs(value) >= 9.95 else f"{value:.1f} {unit}"
    return f"{seconds * 1000:.{0 if abs(seconds) >= 0.00995 else 1}f} ms"


def count(number: int) -> str:
    """A count as people say it: 64.8 billion, 800 million, 41,984."""
    for size, word in ((10**9, "billion"), (10**6, "million")):
        if number >= size:
            value = number / size
            return f"{value:.{0 if value >= 99.95 else 1 if value >= 9.995 else 2}f} {word}"
    return f"{number:,}"
