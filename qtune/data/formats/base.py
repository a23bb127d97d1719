"""The seat of a format, and the fields of a row under the format's own names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qtune.data.readers.jsonl import json_kind
from qtune.data.row import Example, Row, Turn
from qtune.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Fields:
    """The fields of one row; what is missing or of the wrong type is a `DataError`."""

    def __init__(self, row: Row, columns: Mapping[str, str], prompt_template: str | None) -> None:
        self.row = row
        self.prompt_template = prompt_template
        self._columns = columns

    def column(self, field: str) -> str:
        """The column of the file that holds a field."""
        return self._columns.get(field, field)

    def fault(self, field: str, what: str, *, hint: str = "") -> DataError:
        """The error for a field of this row."""
        return DataError(f"{self.column(field)}: {what}", place=self.row.place, hint=hint)

    def value(self, field: str) -> Any:
        """Whatever stands in a field; `DataError` when the row has no such column."""
        try:
            return self.row.values[self.column(field)]
        except KeyError:
            raise self.fault(field, "missing") from None

    def text(self, field: str, *, may_be_empty: bool = True) -> str:
        """The text in a field."""
        return self.checked(field, self.value(field), may_be_empty=may_be_empty)

    def optional_text(self, field: str) -> str:
        """The text in a field that may be absent or null, which count as empty."""
        value = self.row.values.get(self.column(field))
        return "" if value is None else self.checked(field, value)

    def checked(self, field: str, value: Any, *, may_be_empty: bool = True, at: str = "") -> str:
        """`value` as text that can be encoded; `at` says where in the field it stands."""
        if not isinstance(value, str):
            kind = "null" if value is None else json_kind(value)
            raise self.fault(field, f"{at}is {kind}, text is needed")
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError as error:
                code = f"U+{ord(value[error.start]):04X}"
                raise self.fault(field, f"{at}holds half a surrogate pair ({code})") from None
        if not may_be_empty and not value.strip():
            raise self.fault(field, f"{at}is empty")
        return value


@dataclass(frozen=True, kw_only=True)
class Format:
    """How the rows of one kind become turns, and which layout writes the turns as text."""

    name: str
    required: tuple[str, ...]
    optional: tuple[str, ...] = ()
    layout: str
    turns: Callable[[Fields], tuple[Turn, ...]]

    def example(
        self, row: Row, *, columns: Mapping[str, str], prompt_template: str | None = None
    ) -> Example:
        """The turns of a row; `DataError` with file:line and field when it has none."""
        turns = self.turns(Fields(row, columns, prompt_template))
        return Example(row.file, row.number, turns)
