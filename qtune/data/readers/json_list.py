"""A JSON list of objects, or an object that holds one list, read element by element.

The text of the file is in memory, its parsed rows are not.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from qtune.data.readers import jsonl
from qtune.data.readers.jsonl import json_kind
from qtune.data.readers.opening import whole_text
from qtune.data.row import Row
from qtune.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from qtune.data.faults import Faults
    from qtune.recipe.sections import SourceSection

_WHITE = " \t\r\n"


def read(path: Path, label: str, source: SourceSection, faults: Faults) -> Iterator[Row]:
    """The rows of a .json file, numbered by line; one that holds JSON Lines is read as such."""
    try:
        text = whole_text(path, label)
        if _is_json_lines(text):
            yield from jsonl.read(path, label, source, faults)
            return
        yield from _rows(_Scanner(text, label), faults)
    except DataError as error:
        faults.add_error(error)


class _Scanner:
    """A place in a JSON text that moves forward and knows its line."""

    def __init__(self, text: str, label: str) -> None:
        self.text = text
        self.label = label
        self.at = 0
        self._line = 1
        self._counted = 0
        self._decode = json.JSONDecoder().raw_decode

    def peek(self) -> str:
        """The next character that is not white, or nothing at the end."""
        while self.at < len(self.text) and self.text[self.at] in _WHITE:
            self.at += 1
        return self.text[self.at : self.at + 1]

    def expect(self, wanted: str) -> str:
        """Step over one of the wanted characters; `DataError` on any other."""
        found = self.peek()
        if not found or found not in wanted:
            what = f"found {found!r}" if found else "the file is cut"
            choice = " or ".join(repr(character) for character in wanted)
            raise DataError(f"not valid JSON: {choice} expected, {what}", place=self.place())
        self.at += 1
        return found

    def value(self) -> Any:
        """The next JSON value; `DataError` with its line when it is malformed."""
        self.peek()
        try:
            value, self.at = self._decode(self.text, self.at)
        except json.JSONDecodeError as error:
            if error.pos >= len(self.text.rstrip()) or error.msg.startswith("Unterminated"):
                error.msg = f"the file is cut ({error.msg})"
            message = f"not valid JSON: {error.msg} at column {error.colno}"
            raise DataError(message, place=f"{self.label}:{error.lineno}") from None
        except (ValueError, RecursionError) as error:
            raise DataError(f"not valid JSON: {error}", place=self.place()) from None
        return value

    def line(self) -> int:
        """The line of the next value, 1-based."""
        self.peek()
        self._line += self.text.count("\n", self._counted, self.at)
        self._counted = self.at
        return self._line

    def place(self) -> str:
        """file:line of the next value."""
        return f"{self.label}:{self.line()}"


def _is_json_lines(text: str) -> bool:
    """A first line that is a whole object, with more below it."""
    first, _, rest = text.lstrip().partition("\n")
    if not first.startswith("{") or not rest.strip():
        return False
    try:
        return isinstance(json.loads(first), dict)
    except (ValueError, RecursionError):
        return False


def _rows(scan: _Scanner, faults: Faults) -> Iterator[Row]:
    start = scan.peek()
    if not start:
        return
    if start == "[":
        yield from _elements(scan, faults)
    elif start == "{":
        yield from _only_list(scan, faults)
    else:
        raise DataError("a list of objects is needed", place=scan.place())
    if scan.peek():
        raise DataError("not valid JSON: more text after the end", place=scan.place())


def _elements(scan: _Scanner, faults: Faults) -> Iterator[Row]:
    """The elements of a list; a piece of text counts as a row with the column `text`."""
    scan.expect("[")
    if scan.peek() == "]":
        scan.at += 1
        return
    while True:
        number = scan.line()
        value = scan.value()
        if isinstance(value, str):
            value = {"text": value}
        if isinstance(value, dict):
            yield Row(scan.label, number, value)
        else:
            message = f"an object is needed, found {json_kind(value)}"
            faults.add(message, place=f"{scan.label}:{number}")
        if scan.expect(",]") == "]":
            return


def _only_list(scan: _Scanner, faults: Faults) -> Iterator[Row]:
    """The elements of the one list that an object holds beside plain values."""
    scan.expect("{")
    found: list[str] = []
    while scan.peek() != "}" or found:
        place = scan.place()
        key = scan.value()
        scan.expect(":")
        if scan.peek() == "[":
            found.append(str(key))
            if len(found) > 1:
                message = f"an object with one list is needed, found {', '.join(found)}"
                raise DataError(message, place=place, hint="keep one list a file")
            yield from _elements(scan, faults)
        else:
            scan.value()
        if scan.expect(",}") == "}":
            break
    if not found:
        raise DataError("a list of objects is needed, found one object", place=f"{scan.label}:1")
