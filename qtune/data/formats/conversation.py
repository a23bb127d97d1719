"""What the chat formats share: a list of turns, checked one by one."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from qtune.data.formats.tool_calls import calls_in, calls_of, tools_of
from qtune.data.readers.jsonl import json_kind
from qtune.data.row import Turn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qtune.data.formats.base import Fields
    from qtune.data.row import Example

THOUGHTS = ("reasoning_content", "thinking", "reasoning")
# A role of its own for answers that are written as a call: see sharegpt.
CALL = "call"


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one family of data sets writes a turn: its keys, and what its roles are here."""

    role_key: str
    text_key: str
    roles: Mapping[str, str]


def conversation(fields: Fields, field: str, dialect: Dialect) -> Example:
    """The example of a row that is one conversation; assistant turns are learnt.

    A turn with `train: false` or weight 0 is not. The tools that may be called stand in the
    row's `tools`, a system text perhaps in its `system`.
    """
    turns = answered(fields, field, read_turns(fields, field, fields.value(field), dialect))
    system = fields.optional_text("system")
    if system and turns[0].role != "system":
        turns = (Turn("system", system), *turns)
    return fields.example(*turns, tools=tools_of(fields))


def answered(fields: Fields, field: str, turns: tuple[Turn, ...]) -> tuple[Turn, ...]:
    """The same turns; `DataError` when none is the assistant's."""
    if not any(turn.role == "assistant" for turn in turns):
        raise fields.fault(field, "has no assistant turn, so there is nothing to learn")
    return turns


def read_turns(fields: Fields, field: str, items: Any, dialect: Dialect) -> tuple[Turn, ...]:
    """The turns of a list, each checked."""
    if not isinstance(items, list):
        raise fields.fault(field, f"is {json_kind(items)}, a list of turns is needed")
    if not items:
        raise fields.fault(field, "is empty")
    reader = _TurnReader(fields, field, dialect)
    return tuple(reader.turn(number, item) for number, item in enumerate(items, 1))


class _TurnReader:
    """Reads turns in order; remembers the calls, for what a tool answers names its call."""

    def __init__(self, fields: Fields, field: str, dialect: Dialect) -> None:
        self._fields = fields
        self._field = field
        self._dialect = dialect
        self._names: dict[str, str] = {}
        self._waiting: list[str] = []

    def turn(self, number: int, item: Any) -> Turn:
        """One turn; `DataError` says which and why not."""
        fields, field = self._fields, self._field
        if not isinstance(item, dict):
            raise fields.fault(field, f"turn {number} is {json_kind(item)}, an object is needed")
        role = self._role(number, item)
        if role == "tool":
            return self._observation(number, item)
        if role == CALL:
            said = self._text(number, item, may_be_empty=False)
            calls = calls_in(fields, field, said, f"turn {number} ")
            return self._answer(number, item, "", calls)
        if role != "assistant":
            self._refuse_calls(number, item)
            return Turn(role, self._text(number, item))
        calls = calls_of(fields, field, item, f"turn {number} ")
        absent = bool(calls) and item.get(self._dialect.text_key) is None
        text = "" if absent else self._text(number, item, may_be_empty=bool(calls))
        return self._answer(number, item, text, calls)

    def _answer(
        self, number: int, item: dict[str, Any], text: str, calls: Sequence[dict[str, Any]]
    ) -> Turn:
        self._waiting = [call["function"]["name"] for call in calls]
        said = item.get("tool_calls")
        for call, name in zip(said if isinstance(said, list) else (), self._waiting, strict=False):
            self._names[str(call.get("id"))] = name
        flag = self._flag(number, item)
        return Turn(
            "assistant",
            text,
            train=flag is not False,
            asked=flag is True,
            thinking=self._thinking(number, item),
            tool_calls=tuple(calls),
        )

    def _observation(self, number: int, item: dict[str, Any]) -> Turn:
        """What a tool answered; its name is said, or that of the call it answers."""
        next_name = self._waiting.pop(0) if self._waiting else ""
        name = item.get("name")
        if name is None:
            name = self._names.get(str(item.get("tool_call_id")), next_name)
        name = self._fields.checked(self._field, name, at=f"'name' of turn {number} ")
        return Turn("tool", self._text(number, item), name=name)

    def _role(self, number: int, item: dict[str, Any]) -> str:
        fields, field, dialect = self._fields, self._field, self._dialect
        for key in (dialect.role_key, dialect.text_key):
            if key not in item and not (key != dialect.role_key and item.get("tool_calls")):
                raise fields.fault(field, f"turn {number} has no {key!r}")
        at = f"{dialect.role_key!r} of turn {number} "
        said = fields.checked(field, item[dialect.role_key], at=at)
        role = dialect.roles.get(said.strip().lower())
        if role is None:
            close = get_close_matches(said, dialect.roles, n=1)
            known = "roles are system, user, assistant and tool"
            hint = f"did you mean {close[0]}?" if close else known
            raise fields.fault(field, f"turn {number} has the unknown role {said!r}", hint=hint)
        return role

    def _text(self, number: int, item: dict[str, Any], *, may_be_empty: bool | None = None) -> str:
        """The text of a turn; a list of text parts is joined."""
        fields, field, key = self._fields, self._field, self._dialect.text_key
        at = f"{key!r} of turn {number} "
        value = item.get(key)
        if isinstance(value, list) and value:
            value = "".join(self._part(number, part) for part in value)
        return fields.checked(field, value, may_be_empty=may_be_empty is not False, at=at)

    def _part(self, number: int, part: Any) -> str:
        fields, field = self._fields, self._field
        kind = part.get("type") if isinstance(part, dict) else None
        if kind != "text":
            what = f"a part of type {kind!r}" if kind else json_kind(part)
            raise fields.fault(field, f"turn {number} holds {what}, only text parts are read")
        return fields.checked(field, part.get("text"), at=f"a part of turn {number} ")

    def _thinking(self, number: int, item: dict[str, Any]) -> str:
        """The reasoning that stands beside an answer, under the names it goes by."""
        for key in THOUGHTS:
            if item.get(key) is not None:
                return self._fields.checked(self._field, item[key], at=f"{key!r} of turn {number} ")
        return ""

    def _refuse_calls(self, number: int, item: dict[str, Any]) -> None:
        if item.get("tool_calls"):
            what = f"turn {number} calls tools, which only the assistant does"
            raise self._fields.fault(self._field, what)

    def _flag(self, number: int, item: dict[str, Any]) -> bool | None:
        """A turn's own `train` flag, or its `weight` of 0 or 1; None when it has neither."""
        said: bool | None = None
        for key in ("train", "weight"):
            flag = item.get(key)
            if flag is not None and flag not in (0, 1):
                what = f"{key!r} of turn {number} is {flag!r}, 0 or 1 is needed"
                raise self._fields.fault(self._field, what)
            if flag is not None:
                said = bool(flag) and said is not False
        return said
