"""What an answer comes down to: its number, or what a regular expression finds in it."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation

_MARK = "####"  # GSM8K writes the result behind it
# what joins two numbers (10-12, A-5) is no sign
_SIGN = r"(?:(?<![\w.)%])([-\u2212])[$€£]?)?"
_NUMBER = re.compile(_SIGN + r"((?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?)")


def numeric_match(text: str, reference: str) -> float:
    """1.0 when both come to the same number; 0.0 where one of them has none."""
    said, wanted = number_in(text), number_in(reference)
    return float(said is not None and said == wanted)


def number_in(text: str) -> Decimal | None:
    """The number behind #### if there is one, else the last number: 1,200 and -$3.50 are such."""
    _, mark, behind = text.rpartition(_MARK)
    found = _NUMBER.findall(behind if mark else text)
    if not found:
        return None
    sign, digits = found[0] if mark else found[-1]
    try:
        return Decimal(("-" if sign else "") + digits.replace(",", ""))
    except InvalidOperation:
        return None


def pattern_match(text: str, reference: str, pattern: str) -> float:
    """1.0 when `pattern` finds in the text what it finds in the reference, or the reference."""
    said, wanted = found_in(text, pattern), found_in(reference, pattern)
    return float(said is not None and said == (reference.strip() if wanted is None else wanted))


def found_in(text: str, pattern: str) -> str | None:
    """The last group of the first match, or the whole match; None without one."""
    match = re.search(pattern, text)
    if match is None:
        return None
    found = match[match.lastindex or 0]
    return found.strip()
