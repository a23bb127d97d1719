"""A run's recipe.yaml read as text: each line with the origin that stands behind it as a comment.

It is read without the schema, so that a recipe of another version is shown as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

DEFAULT = "default"
_MARK = " # "


@dataclass(frozen=True)
class Recorded:
    """A line: `text` without its comment, `origin` what that says, `key` as sections name it
    (empty where the line sets nothing by itself)."""

    text: str
    key: str
    value: str
    origin: str

    @property
    def is_asked(self) -> bool:
        """Whether somebody wrote it, instead of a default."""
        return bool(self.value) and self.origin not in ("", DEFAULT)


def recorded(text: str) -> Iterator[Recorded]:
    """The lines of a recipe that a run has kept."""
    above: list[tuple[int, str]] = []
    for line in text.splitlines():
        kept, mark, origin = line.rpartition(_MARK)
        body = (kept if mark else line).rstrip()
        name, colon, value = body.strip().removeprefix("- ").partition(":")
        if not colon or body.lstrip().startswith("#"):
            yield Recorded(line.rstrip(), "", "", "")
            continue
        depth = len(body) - len(body.lstrip(" -"))
        while above and above[-1][0] >= depth:
            above.pop()
        key = ".".join([*(each for _, each in above), name])
        above.append((depth, name))
        yield Recorded(body, key, value.strip(), origin.strip() if mark else "")
