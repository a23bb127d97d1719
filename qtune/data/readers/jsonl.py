"""JSON Lines: one object a line, or one list a line when its items are named."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from qtune.data.readers.opening import text_lines
from qtune.data.readers.unique import Objects
from qtune.data.row import Row
from qtune.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from qtune.data.faults import Faults
    from qtune.recipe.inputs import SourceSection


def read(path: Path, label: str, source: SourceSection, faults: Faults) -> Iterator[Row]:
    """The rows of a .jsonl file; blank lines are passed over."""
    objects = Objects()
    decode = json.JSONDecoder(object_pairs_hook=objects.make).decode
    for number, text in enumerate(text_lines(path, label, faults), 1):
        if not text or text.isspace():
            continue
        place = f"{label}:{number}"
        objects.twice = None
        try:
            value = decode(text)
            objects.refuse_twice()
            yield Row(label, number, row_of(value, source.column_names, place))
        except DataError as error:
            fault = error.faults[0]
            faults.add(fault.message, place=place, hint=_hint(text, number) or fault.hint)
        except (ValueError, RecursionError) as error:
            faults.add(_reason(text, error), place=place, hint=_hint(text, number))


def row_of(value: Any, names: Sequence[str], place: str) -> dict[str, Any]:
    """The columns of a JSON value: an object's own, or the items of a list under their names."""
    if isinstance(value, dict) and not names:
        return value
    if not isinstance(value, list) or not names:
        hint = "name its items with column_names" if isinstance(value, list) else ""
        needed = "a list is needed, as column_names are given" if names else "an object is needed"
        raise DataError(f"{needed}, found {json_kind(value)}", place=place, hint=hint)
    if len(value) != len(names):
        expected = f"{len(names)} ({', '.join(names)})"
        raise DataError(f"{len(value)} items where {expected} are needed", place=place)
    return dict(zip(names, value, strict=True))


def json_kind(value: object) -> str:
    """What a JSON value is called in messages: text, a number, a list ..."""
    if value is None:
        return "null"
    kinds = {str: "text", bool: "a boolean", int: "a number", float: "a number", list: "a list"}
    return kinds.get(type(value), "an object")


def _reason(text: str, error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "not valid JSON: nested too deeply"
    if not isinstance(error, json.JSONDecodeError):
        return f"not valid JSON: {error}"
    if error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string"):
        return f"not valid JSON: the line is cut ({error.msg} at column {error.colno})"
    return f"not valid JSON: {error.msg} at column {error.colno}"


def _hint(text: str, number: int) -> str:
    if number == 1 and text.strip() == "[":
        return "a JSON list belongs in a .json file"
    return ""
