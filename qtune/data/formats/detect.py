"""Which format a source has: named in the recipe, or read off the columns of its first row."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qtune.data.formats import FORMATS
from qtune.data.formats.prompt_completion import places
from qtune.errors import DataError, UsageError
from qtune.registry import nearest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from qtune.data.formats.base import Format
    from qtune.data.row import Row
    from qtune.recipe.sections import SourceSection

CHAT_COLUMNS = ("messages", "conversations", "conversation", "chat", "dialog")
PAIRS = (
    ("prompt", "completion"),
    ("prompt", "response"),
    ("question", "answer"),
    ("query", "response"),
    ("query", "answer"),
    ("input", "output"),
)
LABELS = ("label", "labels", "category", "class", "intent", "target")
KNOWN = ("instruction + output", "messages", "conversations", "prompt + completion", "text")


@dataclass(frozen=True, slots=True)
class Detected:
    """A format, where its fields stand in the file, and why it was chosen."""

    format: Format
    columns: Mapping[str, str]
    why: str


def detect(row: Row, source: SourceSection) -> Detected:
    """The format of a source; `DataError` when the columns fit none, or more than one."""
    if source.prompt_template is not None and source.format not in ("auto", "prompt-completion"):
        raise UsageError(
            f"prompt_template has no effect on {source.format} rows",
            place=source.path,
            hint="it belongs to the format prompt-completion",
        )
    if source.format != "auto":
        return _named(row, source, source.format, "named in the recipe")
    if source.prompt_template is not None:
        return _named(row, source, "prompt-completion", "auto: there is a prompt_template")
    return _from_columns(row, source)


def _named(row: Row, source: SourceSection, name: str, why: str) -> Detected:
    chosen: Format = FORMATS[name]
    fields = [*chosen.required, *chosen.optional]
    needed = list(chosen.required)
    if source.prompt_template is not None:
        needed = ["completion", *places(source.prompt_template)]
        fields += needed
    for field in source.columns:
        if field not in fields:
            raise UsageError(
                f"columns: {name} has no field {field!r}",
                place=source.path,
                hint=nearest(field, fields),
            )
    if source.prompt_template is not None and "prompt" in source.columns:
        raise UsageError("columns.prompt has no effect beside prompt_template", place=source.path)
    columns = dict(source.columns)
    missing = [field for field in needed if columns.get(field, field) not in row.values]
    missing += [f for f in columns if columns[f] not in row.values and f not in missing]
    if missing:
        wanted = [columns.get(field, field) for field in missing]
        raise _no_columns(row, f"{_listed(wanted)} for {name}", wanted)
    return Detected(chosen.settled(row, columns, source), columns, why)


def _from_columns(row: Row, source: SourceSection) -> Detected:
    """Every reading the columns allow; exactly one must be left."""
    absent = [column for column in source.columns.values() if column not in row.values]
    if absent:
        raise _no_columns(row, f"{_listed(absent)}, as the source maps them", absent)
    readings = list(_readings(row.values, source.columns))
    if not readings:
        wanted = [name for names in KNOWN for name in names.split(" + ")]
        raise _no_columns(row, f"one of: {'; '.join(KNOWN)}", wanted)
    if len(readings) > 1 or "chosen" in row.values:
        choices = "; ".join(f"{name} ({why})" for name, _, why in readings)
        also = "; a preference pair (chosen)" if "chosen" in row.values else ""
        raise DataError(
            f"the columns {_listed(row.values)} can be read as {choices}{also}",
            place=row.place,
            hint="name the format and, if need be, the columns of the source",
        )
    name, columns, why = readings[0]
    for field, column in source.columns.items():
        if column not in columns.values():
            raise UsageError(
                f"columns: {name}, as detected, reads nothing from {field!r}",
                place=source.path,
                hint="name the format, or remove the field",
            )
    chosen: Format = FORMATS[name]
    return Detected(chosen.settled(row, columns, source), columns, f"auto: {why}")


Reading = tuple[str, dict[str, str], str]


def _readings(values: Mapping[str, Any], mapped: Mapping[str, str]) -> Iterator[Reading]:
    """Format name, columns and reason of each reading; plain text only when there is no other."""
    fields = {**{column: column for column in values}, **mapped}
    fields = {field: column for field, column in fields.items() if column in values}
    found = [*_chats(values, fields)]
    if "instruction" in fields and "output" in fields:
        found.append(("alpaca", _columns(fields, "instruction", "input", "output"), ""))
    else:
        pairs = (pair for pair in PAIRS if pair[0] in fields and pair[1] in fields)
        for prompt, completion in pairs:
            columns = {"prompt": fields[prompt], "completion": fields[completion]}
            found.append(("prompt-completion", columns, ""))
    if "text" in fields and not found:
        found.append(("text", _columns(fields, "text"), ""))
        label = next((name for name in LABELS if name in values), None)
        if label:
            columns = {"prompt": fields["text"], "completion": label}
            found.append(("prompt-completion", columns, ""))
    for name, columns, why in found:
        many = "columns" if len(columns) > 1 else "column"
        yield name, columns, why or f"found the {many} {_listed(columns.values())}"


def _chats(values: Mapping[str, Any], fields: Mapping[str, str]) -> Iterator[Reading]:
    """Columns that hold a list of turns, told apart by the keys of their first turn."""
    for field in CHAT_COLUMNS:
        column = fields.get(field, "")
        turns = values.get(column)
        if not column or not isinstance(turns, list):
            continue
        first = turns[0] if turns else {}
        keys = first if isinstance(first, dict) else {}
        if "from" in keys or (field == "conversations" and "role" not in keys):
            why = f"column {column} holds from/value turns"
            yield "sharegpt", {"conversations": column}, why
        elif "role" in keys or field == "messages":
            why = f"column {column} holds role/content turns"
            yield "messages", {"messages": column}, why


def _columns(fields: Mapping[str, str], *names: str) -> dict[str, str]:
    return {name: fields[name] for name in names if name in fields}


def _no_columns(row: Row, expected: str, wanted: Iterable[str]) -> DataError:
    """Found against expected columns, with the nearest names."""
    near = {
        name: close[0]
        for name in wanted
        if name not in row.values
        and (close := difflib.get_close_matches(name, list(row.values), n=1))
    }
    if near:
        hint = "; ".join(f"is {found!r} meant as {name!r}?" for name, found in near.items())
    else:
        hint = "map them with columns: {field: column}"
    found = _listed(row.values) if row.values else "none"
    return DataError(f"found the columns {found}; expected {expected}", place=row.place, hint=hint)


def _listed(names: Iterable[str]) -> str:
    """Names in a row, at most eight of them."""
    listed = [str(name) for name in names]
    more = f" and {len(listed) - 8} more" if len(listed) > 8 else ""
    return ", ".join(listed[:8]) + more
