"""A JSON text read value by value: no more of it is held than the value at hand."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from qtune.data.readers.unique import Objects
from qtune.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

_WHITE = " \t\r\n"
# A fault this close to the end of what is held may go away with more: `tru`, `-Infini`, `\\ud83`.
_CUT_WORD = 16


class Scanner:
    """A place in a JSON text that moves forward and knows its line."""

    def __init__(self, pieces: Iterator[str], label: str) -> None:
        self.label = label
        self._pieces = pieces
        self._text = ""
        self._at = 0
        self._line = 1
        self._column = 1
        self._counted = 0  # where line and column are known
        self.objects = Objects()
        self._decode = json.JSONDecoder(object_pairs_hook=self.objects.make).raw_decode

    def peek(self) -> str:
        """The next character that is not white, or nothing at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in _WHITE:
                self._at += 1
            if self._at < len(self._text) or not self._more():
                return self._text[self._at : self._at + 1]

    def expect(self, wanted: str) -> str:
        """Step over one of the wanted characters; `DataError` on any other."""
        found = self.peek()
        if not found or found not in wanted:
            what = f"found {found!r}" if found else "the file is cut"
            choice = " or ".join(repr(character) for character in wanted)
            raise DataError(f"not valid JSON: {choice} expected, {what}", place=self.place())
        self._at += 1
        return found

    def value(self) -> Any:
        """The next JSON value; `DataError` with its line when it is malformed.

        `objects` then tells whether a key stands twice in it.
        """
        self.objects.twice = None
        while True:
            self.peek()
            try:
                value, end = self._decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if _may_go_on(error, self._text) and self._more():
                    continue
                raise self._malformed(error) from None
            except RecursionError:
                raise DataError("not valid JSON: nested too deeply", place=self.place()) from None
            except ValueError as error:
                raise DataError(f"not valid JSON: {error}", place=self.place()) from None
            if end == len(self._text) and isinstance(value, int | float) and self._more():
                continue  # a number may have more digits
            self._at = end
            return value

    def line(self) -> int:
        """The line of the next value, 1-based."""
        self.peek()
        self._count()
        return self._line

    def place(self) -> str:
        """file:line of the next value."""
        return f"{self.label}:{self.line()}"

    def _more(self) -> bool:
        """Take in as much again as is held, so that a long value is not parsed too often; False,
        and nothing has moved, at the end of the file."""
        pieces: list[str] = []
        wanted = len(self._text) - self._at
        for piece in self._pieces:
            pieces.append(piece)
            wanted -= len(piece)
            if wanted <= 0:
                break
        if not pieces:
            return False
        self._count()
        self._text = "".join([self._text[self._at :], *pieces])
        self._at = self._counted = 0
        return True

    def _count(self) -> None:
        """Count the lines up to here."""
        self._line, self._column = self._position(self._at)
        self._counted = self._at

    def _position(self, at: int) -> tuple[int, int]:
        """Line and column of a place behind the counted one."""
        lines = self._text.count("\n", self._counted, at)
        if not lines:
            return self._line, self._column + at - self._counted
        return self._line + lines, at - self._text.rfind("\n", self._counted, at)

    def _malformed(self, error: json.JSONDecodeError) -> DataError:
        cut = error.pos >= len(self._text.rstrip()) or error.msg.startswith("Unterminated")
        what = f"the file is cut ({error.msg})" if cut else error.msg
        line, column = self._position(error.pos)
        return DataError(f"not valid JSON: {what} at column {column}", place=f"{self.label}:{line}")


def _may_go_on(error: json.JSONDecodeError, text: str) -> bool:
    """Whether more text could mend a fault."""
    return error.pos + _CUT_WORD >= len(text) or error.msg.startswith("Unterminated")
