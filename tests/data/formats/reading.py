"""What a format makes of one row, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest

from qtune.data.formats import FORMATS
from qtune.data.formats.base import Format
from qtune.data.row import Example, Row
from qtune.errors import DataError
from qtune.recipe.inputs import SourceSection

PLACE = "f.jsonl:7"


def settled(name: str, values: dict[str, Any], *, first: Any = None, **keys: Any) -> Format:
    """The format as a source has it whose first row is `first`, or the row itself."""
    chosen: Format = FORMATS[name]
    source = SourceSection(path="f.jsonl", **keys)
    return chosen.settled(Row("f.jsonl", 1, first or values), source.columns, source)


def examples(
    name: str, values: dict[str, Any], *, first: Any = None, **keys: Any
) -> tuple[Example, ...]:
    """The examples of a row."""
    source = SourceSection(path="f.jsonl", **keys)
    own = settled(name, values, first=first, **keys)
    return own.examples(Row("f.jsonl", 7, values), columns=source.columns, source=source)


def only(name: str, values: dict[str, Any], **keys: Any) -> Example:
    """The one example of a row."""
    (example,) = examples(name, values, **keys)
    return example


def refuse(name: str, values: dict[str, Any], message: str, **keys: Any) -> None:
    """Assert that the row is refused at its place with a message that begins so."""
    with pytest.raises(DataError) as caught:
        examples(name, values, **keys)
    (fault,) = caught.value.faults
    assert fault.place == PLACE
    assert str(fault).startswith(f"{PLACE}: {message}"), str(fault)
