"""What cuts the lines of a text file into columns: as a source says it, or as the lines show."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

# A quote that is never closed makes one field of all that follows; it must not fill the memory.
LONGEST_FIELD = 1 << 26
COLUMNS = ("prompt", "completion")
_DELIMITERS = ("||", "\t")
_LOOKED_AT = 100


def meant(delimiter: str | None) -> str | None:
    """A delimiter as meant: `\\t` in single quotes reaches us as two characters."""
    return delimiter.replace("\\t", "\t") if delimiter else None


def delimiter_in(lines: Iterable[str]) -> str | None:
    """The delimiter that stands once, between text, in each of the first lines that are not blank.

    None when there is no such delimiter, or but one line: a document may have a tab.
    """
    first = list(islice((line for line in lines if line.strip()), _LOOKED_AT))
    return next((text for text in _DELIMITERS if len(first) > 1 and _cuts(text, first)), None)


def _cuts(delimiter: str, lines: list[str]) -> bool:
    return all(
        line.count(delimiter) == 1 and all(part.strip() for part in line.split(delimiter))
        for line in lines
    )
