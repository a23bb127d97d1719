"""A JSON list of rows, or an object that holds such lists by split, read element by element."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING

from qtune.data.readers import jsonl
from qtune.data.readers.json_scan import Scanner
from qtune.data.readers.jsonl import row_of
from qtune.data.readers.opening import text_pieces
from qtune.data.row import Row
from qtune.errors import DataError
from qtune.recipe.splits import list_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from qtune.data.faults import Faults
    from qtune.recipe.inputs import SourceSection

_LONGEST_LINE = 1 << 24


def read(path: Path, label: str, source: SourceSection, faults: Faults) -> Iterator[Row]:
    """The rows of a .json file, numbered by line; one that holds JSON Lines is read as such."""
    try:
        if _is_json_lines(path, label):
            _refuse_split(source, label, "JSON Lines")
            yield from jsonl.read(path, label, source, faults)
            return
        scan = Scanner(text_pieces(path, label), label)
        start = scan.peek()
        if start == "[":
            _refuse_split(source, label, "a list")
            yield from _elements(scan, source, faults)
            _end(scan)
        elif start == "{":
            yield from _of_object(path, scan, source, faults)
        elif start:
            raise DataError("a list of objects is needed", place=scan.place())
    except DataError as error:
        faults.add_error(error)
        faults.cut_off = True


def _is_json_lines(path: Path, label: str) -> bool:
    """A first line that is a whole object, with more below it."""
    head = ""
    with closing(text_pieces(path, label)) as pieces:
        for piece in pieces:
            head = (head + piece).lstrip()
            first, _, rest = head.partition("\n")
            if rest.strip() or (head and head[0] != "{") or len(head) > _LONGEST_LINE:
                break
        else:
            return False
    try:
        return bool(rest.strip()) and isinstance(json.loads(first), dict)
    except (ValueError, RecursionError):
        return False


def _refuse_split(source: SourceSection, label: str, what: str) -> None:
    if source.split != "train":
        message = f"split {source.split!r} is asked for, and the file is {what} without splits"
        raise DataError(message, place=label, hint="remove split")


def _elements(scan: Scanner, source: SourceSection, faults: Faults) -> Iterator[Row]:
    """The elements of a list; a piece of text counts as a row with the column `text`."""
    scan.expect("[")
    if scan.peek() == "]":
        scan.expect("]")
        return
    while True:
        number = scan.line()
        value = scan.value()
        if isinstance(value, str) and not source.column_names:
            value = {"text": value}
        place = f"{scan.label}:{number}"
        try:
            scan.objects.refuse_twice()
            yield Row(scan.label, number, row_of(value, source.column_names, place))
        except DataError as error:
            faults.add_error(error, place=place)
        if scan.expect(",]") == "]":
            return


def _of_object(path: Path, scan: Scanner, source: SourceSection, faults: Faults) -> Iterator[Row]:
    """The list of the split; without one of that name, the only list that there is."""
    found: list[str] = []
    yield from _list(scan, source.split, source, faults, found)
    if not found:
        raise DataError("a list of objects is needed, found one object", place=f"{scan.label}:1")
    name = list_of(source.split, found, place=scan.label)
    if name != source.split:
        again = Scanner(text_pieces(path, scan.label), scan.label)
        yield from _list(again, name, source, faults, [])


def _list(
    scan: Scanner, name: str, source: SourceSection, faults: Faults, found: list[str]
) -> Iterator[Row]:
    """The elements of one list of an object; the names of all its lists go to `found`."""
    scan.expect("{")
    while scan.peek() != "}" or found:
        key = str(scan.value())
        scan.expect(":")
        if scan.peek() != "[":
            scan.value()
        elif key == name:
            found.append(key)
            yield from _elements(scan, source, faults)
        else:
            found.append(key)
            _pass_over(scan)
        if scan.expect(",}") == "}":
            break
    else:
        scan.expect("}")
    _end(scan)


def _pass_over(scan: Scanner) -> None:
    """Step over a list without holding it."""
    scan.expect("[")
    if scan.peek() == "]":
        scan.expect("]")
        return
    while True:
        scan.value()
        if scan.expect(",]") == "]":
            return


def _end(scan: Scanner) -> None:
    if scan.peek():
        raise DataError("not valid JSON: more text after the end", place=scan.place())
