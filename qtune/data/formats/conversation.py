"""What the two chat formats share: a list of turns, checked one by one."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from qtune.data.readers.jsonl import json_kind
from qtune.data.row import Turn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qtune.data.formats.base import Fields


def read_turns(
    fields: Fields, field: str, *, role_key: str, text_key: str, roles: Mapping[str, str]
) -> tuple[Turn, ...]:
    """The turns of a conversation; assistant turns are learnt unless they say `train: false`."""
    items = fields.value(field)
    if not isinstance(items, list):
        kind = json_kind(items)
        raise fields.fault(field, f"is {kind}, a list of turns is needed")
    if not items:
        raise fields.fault(field, "is empty")
    turns = tuple(
        _turn(fields, field, number, item, role_key=role_key, text_key=text_key, roles=roles)
        for number, item in enumerate(items, 1)
    )
    if not any(turn.role == "assistant" for turn in turns):
        raise fields.fault(field, "has no assistant turn, so there is nothing to learn")
    return turns


def _turn(
    fields: Fields,
    field: str,
    number: int,
    item: Any,
    *,
    role_key: str,
    text_key: str,
    roles: Mapping[str, str],
) -> Turn:
    if not isinstance(item, dict):
        raise fields.fault(field, f"turn {number} is {json_kind(item)}, an object is needed")
    if item.get("tool_calls"):
        raise fields.fault(field, f"turn {number} holds tool calls, which are not read")
    for key in (role_key, text_key):
        if key not in item:
            raise fields.fault(field, f"turn {number} has no {key!r}")
    said = fields.checked(field, item[role_key], at=f"{role_key!r} of turn {number} ")
    role = roles.get(said.strip().lower())
    if role is None:
        close = get_close_matches(said, roles, n=1)
        hint = f"did you mean {close[0]}?" if close else "roles are system, user and assistant"
        raise fields.fault(field, f"turn {number} has the unknown role {said!r}", hint=hint)
    at = f"{text_key!r} of turn {number} "
    answers = role == "assistant"
    text = fields.checked(field, item[text_key], may_be_empty=not answers, at=at)
    flag = _flag(fields, field, number, item)
    return Turn(role, text, train=answers and flag is not False, asked=answers and flag is True)


def _flag(fields: Fields, field: str, number: int, item: dict[str, Any]) -> bool | None:
    """A turn's own `train` flag, or its `weight` of 0 or 1; None when it has neither."""
    said: bool | None = None
    for key in ("train", "weight"):
        flag = item.get(key)
        if flag is not None and flag not in (0, 1):
            raise fields.fault(field, f"{key!r} of turn {number} is {flag!r}, 0 or 1 is needed")
        if flag is not None:
            said = bool(flag) and said is not False
    return said
