"""Which format a source has: named in the recipe, or read off the columns of its first row."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qtune.data.formats import FORMATS, pictured
from qtune.data.formats.labelled import (
    CHAT,
    CHAT_WITH_LABEL,
    LABELLED,
    TEXT_WITH_LABEL,
    guessed,
)
from qtune.data.formats.labels import labels_of
from qtune.data.formats.prompt_completion import places
from qtune.data.formats.readings import ALIASES, readings, unanswered
from qtune.errors import DataError, UsageError
from qtune.registry import nearest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from qtune.data.formats.base import Format
    from qtune.data.formats.readings import Reading
    from qtune.data.row import Row
    from qtune.recipe.inputs import SourceSection

_NAME_WORDS = 4  # a heading with more is a sentence
KNOWN = (
    "messages",
    "conversations",
    "instruction + output",
    "prompt + completion",
    "text + label",
    "text",
)


@dataclass(frozen=True, slots=True)
class Detected:
    """A format, where its fields stand in the file, and why it was chosen."""

    format: Format
    columns: Mapping[str, str]
    why: str


def detect(row: Row, source: SourceSection) -> Detected:
    """The format of a source; `DataError` when the columns fit none, or more than one."""
    if source.format == LABELLED:
        return _labelled(row, source)
    if source.labels and source.format in ("auto", "classification"):
        labels_of(source)  # what is wrong with a file of them is told once, not for each row
    if source.format != "auto":
        return _named(row, source, source.format, "named in the recipe")
    if source.labels:
        return _classification(row, source, "there are labels")
    if source.prompt_template is None:
        return _from_columns(row, source)
    found = readings(row.values, source.columns)
    completes = "completion" in row.values or "completion" in source.columns
    if not completes and [one.name for one in found] == ["classification"]:
        return _classification(row, source, f"there is a prompt_template, and {found[0].why}")
    return _named(row, source, "prompt-completion", "auto: there is a prompt_template")


def _labelled(row: Row, source: SourceSection) -> Detected:
    """An image, a text or a chat and its label, for the head of a classification."""
    if pictured.shows_image(row.values, source.columns):
        told = {**pictured.guessed(row.values), **source.columns}
        own = {field: name for field, name in told.items() if field != name}
        mapped = source.model_copy(update={"columns": own})
        return settled(row, mapped, pictured.IMAGE_WITH_LABEL, "task: classification")
    chat = CHAT in row.values or CHAT in source.columns
    kind = CHAT_WITH_LABEL if chat else TEXT_WITH_LABEL
    columns: dict[str, str] = {}
    for one in readings(row.values, source.columns):
        columns |= one.columns if one.name == "classification" else {}
    if not columns:
        columns = guessed(row.values)
    if chat or source.prompt_template is not None:
        columns = {field: column for field, column in columns.items() if field == "label"}
    found = {field: name for field, name in columns.items() if field != name}
    mapped = source.model_copy(update={"columns": {**found, **source.columns}})
    return settled(row, mapped, kind, "task: classification")


def _classification(row: Row, source: SourceSection, why: str) -> Detected:
    """The columns that a classification is found in, unless the source maps them."""
    found = readings(row.values, source.columns)
    columns = next((dict(one.columns) for one in found if one.name == "classification"), {})
    if source.prompt_template is not None and "text" not in places(source.prompt_template):
        columns.pop("text", None)
    mapped = source.model_copy(update={"columns": {**columns, **source.columns}})
    return _named(row, mapped, "classification", f"auto: {why}")


def _named(row: Row, source: SourceSection, name: str, why: str) -> Detected:
    return settled(row, source, FORMATS[name], why)


def settled(row: Row, source: SourceSection, chosen: Format, why: str) -> Detected:
    """A format whose columns are there; `DataError` or `UsageError` for what is not."""
    name = chosen.name
    _refuse_unread(source, chosen)
    needed, fields = list(chosen.required), [*chosen.required, *chosen.optional]
    if source.prompt_template is not None:
        asked = places(source.prompt_template)
        needed = [*(field for field in needed if field not in chosen.prompted), *asked]
        fields += asked
    for field in source.columns:
        if field not in fields:
            raise UsageError(
                f"columns: {name} has no field {field!r}",
                place=source.path,
                hint=nearest(field, fields),
            )
        if field in chosen.prompted and field not in needed:
            message = f"columns.{field} has no effect beside prompt_template"
            raise UsageError(message, place=source.path)
    columns = dict(source.columns)
    missing = [field for field in needed if columns.get(field, field) not in row.values]
    missing += [f for f in columns if columns[f] not in row.values and f not in missing]
    if missing:
        wanted = [columns.get(field, field) for field in missing]
        raise _no_columns(row, source, f"{_listed(wanted)} for {name}", wanted)
    return Detected(chosen.settled(row, columns, source), columns, why)


def _refuse_unread(source: SourceSection, chosen: Format) -> None:
    """Keys that only some formats look at."""
    for key, read in (("prompt_template", chosen.prompted), ("labels", chosen.prompt)):
        if getattr(source, key) and not read:
            message = f"{key} has no effect on {chosen.name} rows"
            owner = "prompt-completion" if key == "prompt_template" else "classification"
            hint = f"it belongs to the format {owner}"
            raise UsageError(message, place=source.path, hint=hint)


def _from_columns(row: Row, source: SourceSection) -> Detected:
    """Every reading the columns allow; exactly one must be left."""
    _refuse_unknown(source)
    absent = [column for column in source.columns.values() if column not in row.values]
    if absent:
        raise _no_columns(row, source, f"{_listed(absent)}, as the source maps them", absent)
    found = readings(row.values, source.columns)
    _refuse_questions(row, found)
    if not found:
        wanted = [name for names in KNOWN for name in names.split(" + ")]
        raise _no_columns(row, source, f"one of: {'; '.join(KNOWN)}", wanted)
    if len(found) > 1:
        choices = "; ".join(f"{one.name} ({one.why})" for one in found)
        raise DataError(
            f"the columns {_listed(row.values)} can be read as {choices}",
            place=row.place,
            hint="name the format and, if need be, the columns of the source",
        )
    (only,) = found
    for field in source.columns:
        if not _acts(field, only, row, source):
            raise UsageError(
                f"columns: {only.name}, as detected, reads nothing from {field!r}",
                place=source.path,
                hint="name the format, or remove the field",
            )
    chosen: Format = FORMATS[only.name]
    settled = chosen.settled(row, only.columns, source)
    return Detected(settled, only.columns, f"auto: {only.why}")


def _refuse_unknown(source: SourceSection) -> None:
    """A misspelt field would leave the rows to be read as something else."""
    known = ALIASES.union(*((*one.required, *one.optional) for one in FORMATS.values()))
    for field in source.columns:
        if field not in known:
            message = f"columns: no format has a field {field!r}"
            raise UsageError(message, place=source.path, hint=nearest(field, known))


def _acts(field: str, chosen: Reading, row: Row, source: SourceSection) -> bool:
    """Whether a reading has what a field is mapped to in the field's place: that of its name, or
    for another word for it (answer: completion) the one that is found through it alone."""
    column = source.columns[field]
    if column in (field, chosen.columns.get(field)):
        return column in chosen.columns.values()
    others = {name: of for name, of in source.columns.items() if name != field}
    return field not in chosen.columns and readings(row.values, others) != [chosen]


def _refuse_questions(row: Row, found: list[Reading]) -> None:
    """Rows that ask and do not answer are not silently learnt as texts."""
    if reason := unanswered(row.values):
        could = [f"{one.name} ({one.why})" for one in found]
        if any(one.name == "classification" for one in found):
            could.append("text without an answer")
        rest = f"; they can be read as {' or '.join(could)}" if could else ""
        raise DataError(
            f"there is nothing to learn: {reason}{rest}",
            place=row.place,
            hint="name the format of the source if the rows are meant to be learnt",
        )


def _no_columns(row: Row, source: SourceSection, expected: str, wanted: Iterable[str]) -> DataError:
    """Found against expected columns, with the nearest names."""
    wanted = list(wanted)
    others = [name for name in row.values if name not in wanted]
    near = {
        name: close[0]
        for name in wanted
        if name not in row.values and (close := difflib.get_close_matches(name, others, n=1))
    }
    if near:
        hint = "; ".join(f"is {found!r} meant as {name!r}?" for name, found in near.items())
    elif _headless(row, source):
        hint = "the first line looks like a row: name the columns with column_names"
    else:
        hint = "map them with columns: {field: column}"
    found = _listed(row.values) if row.values else "none"
    return DataError(f"found the columns {found}; expected {expected}", place=row.place, hint=hint)


def _headless(row: Row, source: SourceSection) -> bool:
    """Whether the names of a table's columns look like a row of it."""
    table = {".csv", ".tsv"} & set(Path(source.path).suffixes) and not source.column_names
    names = [str(name) for name in row.values]
    return bool(table) and any(
        len(name.split()) > _NAME_WORDS or name.strip("-").replace(".", "").isdecimal() or not name
        for name in names
    )


def _listed(names: Iterable[str]) -> str:
    """Names in a row, at most eight of them."""
    listed = [str(name) for name in names]
    more = f" and {len(listed) - 8} more" if len(listed) > 8 else ""
    return ", ".join(listed[:8]) + more
