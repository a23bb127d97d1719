"""`train[100:200]`, `train[-10%:]`: a split and a slice of its rows, as `datasets` reads them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qtune.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

_SPLIT = re.compile(
    r"(?P<name>[^\[\]+()]+)"
    r"(\[((?P<start>-?\d+)(?P<start_share>%)?)?:((?P<stop>-?\d+)(?P<stop_share>%)?)?\])?"
)
# The words of file names and their split, as people and `datasets` use them.
_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}


@dataclass(frozen=True, slots=True)
class Split:
    """A split and the rows of it that are taken: numbers, or hundredths with `share`."""

    name: str
    start: int | None = None
    stop: int | None = None
    share: bool = False

    @property
    def whole(self) -> bool:
        """Whether every row is taken."""
        return self.start is None and self.stop is None

    @property
    def relative(self) -> bool:
        """Whether the bounds depend on the number of rows."""
        return self.share or (self.start or 0) < 0 or (self.stop or 0) < 0

    def bounds(self, rows: int) -> tuple[int, int]:
        """The first row and the one behind the last; shares round to the nearest row."""
        start = 0 if self.start is None else self._place(self.start, rows)
        stop = rows if self.stop is None else self._place(self.stop, rows)
        return start, max(start, stop)

    def _place(self, bound: int, rows: int) -> int:
        place = round(bound * rows / 100.0) if self.share else bound
        return min(place, rows) if place >= 0 else max(rows + place, 0)


def parse(text: str) -> Split:
    """The split that a source names; `UsageError` for another spelling."""
    found = _SPLIT.fullmatch(text.replace(" ", ""))
    hint = "write a name, or a part of it such as train[:5%] or train[100:200]"
    if not found:
        raise UsageError(f"{text!r} is no split of a local file", place="split", hint=hint)
    start, stop = (int(b) if (b := found[key]) else None for key in ("start", "stop"))
    share = bool(found["start_share"] or found["stop_share"])
    if share and max(abs(start or 0), abs(stop or 0)) > 100:
        raise UsageError(f"{text!r} goes beyond 100%", place="split", hint=hint)
    return Split(found["name"], start, stop, share)


def word_of(name: str) -> str | None:
    """The split that a file name tells, such as data/imdb-test-00000.parquet; None without one."""
    parts = set(re.split(r"[-_. \d]+", name.lower()))
    told = [split for split, words in _WORDS.items() if parts.intersection(words)]
    return told[0] if len(told) == 1 else None


def chosen(asked: str, names: Sequence[str], *, place: str) -> str:
    """The name of the split that is asked for; `UsageError` lists the names there are."""
    if asked in names:
        return asked
    listed = ", ".join(names) or "none"
    raise UsageError(f"no split {asked!r}; there are: {listed}", place=place)


def list_of(asked: str, names: Sequence[str], *, place: str) -> str:
    """Which of the lists in a JSON object holds the rows: the split's, or the only one there is.

    An only list that is called like another split is not taken for the one asked for.
    """
    only = len(names) == 1 and asked == "train" and word_of(names[0]) in (None, "train")
    return names[0] if only else chosen(asked, names, place=place)
