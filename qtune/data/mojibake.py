"""Text that was UTF-8 and was read as cp1252 or latin-1: `â€œ` for a quote, `Ã©` for é.

Precise before complete. Correct text holds such letters side by side too: `«CAFÉ»` ends on two
that would be one letter, so only what no language writes counts. Typographic signs and emoji are
told by their first two letters, accented letters by a first letter that stands in front of signs
only here, and everything else by three in a row.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qtune.data.row import Example

_FIRST, _LAST = 0x80, 0xBF
_RUN = 3


def garbled(example: Example) -> bool:
    """Whether a text of an example is garbled."""
    return any(
        not turn.text.isascii() and _PATTERN.search(turn.text) is not None for turn in example.turns
    )


def _shown(code: int) -> str:
    """The letters that a byte is shown as: by cp1252, and by latin-1."""
    letter = bytes([code]).decode("cp1252", errors="ignore")
    return f"{letter}{chr(code)}"


def _letters(*codes: int) -> str:
    """A class of a regular expression for some bytes."""
    return f"[{re.escape(''.join(map(_shown, codes)))}]"


def _pattern() -> re.Pattern[str]:
    rest = _letters(*range(_FIRST, _LAST + 1))
    closing = {0x82, 0x84, 0x85, 0x91, 0x92, 0x93, 0x94, 0x96, 0x97, 0xA0, 0xAB, 0xBB}
    signs = _letters(*(code for code in range(_FIRST, _LAST + 1) if code not in closing))
    above = _letters(*range(0xA1, 0xBB), *range(0xBC, 0xC0))
    euro = _letters(0x80, 0x82, 0x84, 0x86, 0x87, 0x88, 0x89, 0x98, 0x99, 0x9C)
    return re.compile(
        "|".join(
            (
                "\u00e2\u20ac",  # quotes and dashes; their third byte may be lost
                f"\u00e2{euro}{rest}",  # arrows, mathematics
                f"\u00f0{_letters(0x9F)}{rest}",  # emoji
                f"\u00ef{_letters(0xBB)}{_letters(0xBF)}",  # the byte order mark
                f"\u00c2{above}",  # signs of latin-1
                f"\u00c3{signs}",  # letters of latin-1
                f"(?:[\u00c2-\u00df]{rest}){{{_RUN}}}",  # Greek, Cyrillic, Hebrew, Arabic
                f"(?:[\u00e0-\u00ef]{rest}{rest}){{{_RUN}}}",  # East Asian letters
            )
        )
    )


_PATTERN = _pattern()
