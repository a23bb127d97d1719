"""Special tokens typed in a row's own texts: stand-ins while the template runs, text again after.

A template only copies text, so a stand-in comes out where the token was typed, and never counts as
one of the template's own marks.
"""

from __future__ import annotations

import re
from typing import Any

from qtune.data.encode.segment import Segment
from qtune.errors import DataError

# Private-use characters that stand around the number of a typed token.
_OPEN, _CLOSE = "\U000f0000", "\U000f0001"
_STAND_IN = re.compile(f"{_OPEN}(\\d+){_CLOSE}")


class Typed:
    """The special tokens found in one row."""

    def __init__(self, special: re.Pattern[str] | None) -> None:
        self._special = special
        self._found: list[str] = []

    def __len__(self) -> int:
        return len(self._found)

    def hide(self, value: Any) -> Any:
        """A text, or JSON with texts in it, with stand-ins for special tokens."""
        if isinstance(value, str):
            return self._hide(value)
        if isinstance(value, dict):
            return {self.hide(key): self.hide(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.hide(item) for item in value]
        return value

    def pieces(self, text: str, *, trained: bool) -> list[Segment]:
        """A stretch of the rendering, with the typed special tokens back as plain text."""
        parts = _STAND_IN.split(text)
        return [
            Segment(self._found[int(part)], trained, plain=True)
            if odd % 2
            else Segment(part, trained)
            for odd, part in enumerate(parts)
            if part
        ]

    def _hide(self, text: str) -> str:
        if _OPEN in text:
            raise DataError("the text holds the private-use character U+F0000", hint="remove it")
        return self._special.sub(self._stand_in, text) if self._special else text

    def _stand_in(self, found: re.Match[str]) -> str:
        self._found.append(found.group())
        return f"{_OPEN}{len(self._found) - 1}{_CLOSE}"
