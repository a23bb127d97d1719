"""Objects of JSON whose keys stand in them once: parsers take the last one without a word."""

from __future__ import annotations

from collections import Counter
from typing import Any

from qtune.errors import DataError


class Objects:
    """Makes the objects of JSON texts, as `object_pairs_hook`; `twice`: a key that one repeats."""

    def __init__(self) -> None:
        self.twice: str | None = None

    def make(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        """The object of some keys and values."""
        made = dict(pairs)
        if len(made) != len(pairs):
            self.twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        return made

    def refuse_twice(self) -> None:
        """`DataError` without a place if a key was repeated."""
        if self.twice is not None:
            raise DataError(f"the key {self.twice!r} stands twice in one object", hint="remove one")
