"""A look at the first rows: their format, how many there are and how long they may be. No torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qtune.data.faults import Faults
from qtune.data.formats.detect import detect
from qtune.data.formats.labelled import LABELLED
from qtune.data.source import read
from qtune.errors import DataError, UsageError
from qtune.plan.rows import count_rows
from qtune.recipe.inputs import DataSection, SourceSection
from qtune.recipe.sources import find

if TYPE_CHECKING:
    from qtune.data.row import Row

LOOKED_AT = 200
LETTERS = 3.5
"""Of English text in a token, about; code and other languages have fewer."""
_CHATS = ("messages", "sharegpt", "tree")


@dataclass(frozen=True)
class Look:
    """What was seen: without local files only the name of a hub data set."""

    path: str
    format: str
    columns: dict[str, str]
    why: str
    rows: int | None
    tokens: int | None
    """Of the longest row looked at, estimated from its letters."""
    hub: bool = False

    @property
    def chats(self) -> bool:
        """Whether rows are conversations, which need a chat template."""
        return self.format in _CHATS

    def told(self) -> str:
        """One line for people."""
        if self.hub:
            return f"{self.path}: a data set of the hub, whose format is found when it is read"
        count = "rows not counted" if self.rows is None else f"{self.rows:,} rows"
        kind = "text and label" if self.format == LABELLED else self.format
        parts = [f"{count}, read as {kind} ({self.why.removeprefix('auto: ')})"]
        if self.tokens:
            parts.append(f"the longest of the first {LOOKED_AT} has about {self.tokens:,} tokens")
        return "; ".join(parts)


def look(path: str, *, task: str = "causal") -> Look:
    """Read the first rows of a source; `DataError` for none, or for rows nothing is learnt from.

    `task`: of the model, as a classification reads text and label.
    """
    if not path.strip():
        raise UsageError("no data is named", hint="a file, a folder or a hub data set")
    source = SourceSection(path=path)
    if find(source) is None:
        if path.count("/") > 1 or " " in path:
            raise DataError("no such file or folder", place=path)
        return Look(path, "auto", {}, "", None, None, hub=True)
    rows = _first(source)
    labelled = source.model_copy(update={"format": LABELLED})
    detected = detect(rows[0], source if task == "causal" else labelled)
    purpose = getattr(detected.format, "purpose", "supervised")
    if purpose != "supervised":
        raise DataError(
            f"{detected.format.name} rows are judged answers, and qtune learns from answers to "
            "imitate",
            place=rows[0].place,
            hint="name rows with one answer each",
        )
    shown = {field: column for field, column in detected.columns.items() if field != column}
    # a tree holds many conversations, and no letters tell how long one is
    longest = None if detected.format.name == "tree" else max(_letters(row) for row in rows)
    counted = count_rows(DataSection(train=(source,)))
    return Look(
        path,
        detected.format.name,
        shown,
        detected.why,
        counted.rows,
        None if longest is None else max(1, round(longest / LETTERS)),
    )


def _first(source: SourceSection) -> list[Row]:
    faults = Faults()
    rows = list(read(source.model_copy(update={"max_rows": LOOKED_AT}), faults))
    if not rows:
        faults.raise_if_any()
        raise DataError("holds no rows", place=source.path)
    return rows


def _letters(row: Row) -> int:
    """Letters of all values of a row."""
    return sum(len(_text(value)) for value in row.values.values())


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
