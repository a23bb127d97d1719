"""JSON Lines: one object a line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from qtune.data.readers.opening import text_lines
from qtune.data.row import Row

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from qtune.data.faults import Faults
    from qtune.recipe.sections import SourceSection


def read(path: Path, label: str, _: SourceSection, faults: Faults) -> Iterator[Row]:
    """The objects of a .jsonl file; blank lines are passed over."""
    decode = json.JSONDecoder().decode
    for number, text in enumerate(text_lines(path, label, faults), 1):
        if not text or text.isspace():
            continue
        try:
            value = decode(text)
        except (ValueError, RecursionError) as error:
            faults.add(_reason(text, error), place=f"{label}:{number}", hint=_hint(text, number))
            continue
        if isinstance(value, dict):
            yield Row(label, number, value)
        else:
            message = f"an object is needed, found {json_kind(value)}"
            faults.add(message, place=f"{label}:{number}", hint=_hint(text, number))


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
    if number == 1 and text.lstrip().startswith("["):
        return "a JSON list belongs in a .json file"
    return ""
