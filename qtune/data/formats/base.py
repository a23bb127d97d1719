"""The seat of a format, and the fields of a row under the format's own names."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from qtune.data.readers.jsonl import json_kind
from qtune.data.row import Example, Row, Turn
from qtune.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from qtune.recipe.inputs import SourceSection

Purpose = Literal["supervised", "preference", "unpaired"]


class Fields:
    """The fields of one row; what is missing or of the wrong type is a `DataError`."""

    def __init__(
        self, row: Row, columns: Mapping[str, str], source: SourceSection, layout: str
    ) -> None:
        self.row = row
        self.source = source
        self.layout = layout
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

    def optional(self, field: str) -> Any:
        """Whatever stands in a field, None when the row has no such column."""
        return self.row.values.get(self.column(field))

    def text(self, field: str, *, may_be_empty: bool = True) -> str:
        """The text in a field."""
        return self.checked(field, self.value(field), may_be_empty=may_be_empty)

    def optional_text(self, field: str) -> str:
        """The text in a field that may be absent or null, which count as empty."""
        value = self.optional(field)
        return "" if value is None else self.checked(field, value)

    def filled_list(self, field: str, *, of: str) -> list[Any]:
        """The list in a field, which must not be empty; `of` says what it is a list of."""
        items = self.value(field)
        if not isinstance(items, list):
            raise self.fault(field, f"is {json_kind(items)}, a list of {of} is needed")
        if not items:
            raise self.fault(field, "is empty")
        return items

    def checked(self, field: str, value: Any, *, may_be_empty: bool = True, at: str = "") -> str:
        """`value` as text that can be encoded; `at` says where in the field it stands."""
        if not isinstance(value, str):
            raise self.fault(field, f"{at}is {json_kind(value)}, text is needed")
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError as error:
                code = f"U+{ord(value[error.start]):04X}"
                raise self.fault(field, f"{at}holds half a surrogate pair ({code})") from None
        if not may_be_empty and not value.strip():
            raise self.fault(field, f"{at}is empty")
        return value

    def example(self, *turns: Turn, part: str = "", tools: tuple[Any, ...] = ()) -> Example:
        """An example of this row."""
        return Example(self.row.file, self.row.number, turns, part=part, tools=tools)


@dataclass(frozen=True, kw_only=True)
class Format:
    """How the rows of one kind become examples, and which layout writes their turns as text.

    `prompt`: the prompt_template that stands for the fields `prompted` when the source has none
    of its own; a format without `prompted` fields takes no prompt_template. `layout_of`: the
    layout of a source whose rows come in several shapes, told by the first.
    """

    name: str
    required: tuple[str, ...]
    optional: tuple[str, ...] = ()
    layout: str
    purpose: Purpose = "supervised"
    prompted: tuple[str, ...] = ()
    prompt: str | None = None
    layout_of: Callable[[Fields], str] | None = None
    read: Callable[[Fields], tuple[Example, ...]]

    def settled(self, row: Row, columns: Mapping[str, str], source: SourceSection) -> Format:
        """The format with the layout that the first row of a source calls for."""
        if self.layout_of is None:
            return self
        return replace(self, layout=self.layout_of(Fields(row, columns, source, self.layout)))

    def examples(
        self, row: Row, *, columns: Mapping[str, str], source: SourceSection
    ) -> tuple[Example, ...]:
        """The examples of a row; `DataError` with file:line and field when it has none."""
        return self.read(Fields(row, columns, source, self.layout))
