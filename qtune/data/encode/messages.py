"""Turns as the messages that chat templates expect: OpenAI's objects."""

from __future__ import annotations

import json
from enum import IntEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qtune.data.encode.typed import Typed
    from qtune.data.row import Turn

Message = dict[str, Any]


class Calls(IntEnum):
    """How tool calls are handed to the template; each is tried where the one before is refused.

    Few data sets hold ids for calls and few templates write them, but Mistral's refuse to go
    without; DeepSeek's want the arguments as JSON text, as OpenAI sends them.
    """

    PLAIN = 0
    NUMBERED = 1
    AS_TEXT = 2


def messages_of(turns: Sequence[Turn], typed: Typed, calls: Calls) -> list[Message]:
    """The messages of some turns."""
    messages = [_message(turn, typed) for turn in turns]
    if calls >= Calls.NUMBERED:
        _number(messages)
    if calls >= Calls.AS_TEXT:
        _as_text(messages)
    return messages


def _message(turn: Turn, typed: Typed) -> Message:
    message: Message = {"role": turn.role, "content": typed.hide(turn.text)}
    if turn.thinking:
        message["reasoning_content"] = typed.hide(turn.thinking)
    if turn.tool_calls:
        message["tool_calls"] = typed.hide(turn.tool_calls)
    if turn.name:
        message["name"] = typed.hide(turn.name)
    return message


def _number(messages: list[Message]) -> None:
    """Nine characters an id; results come in the order of the calls."""
    waiting: list[str] = []
    count = 0
    for message in messages:
        for call in message.get("tool_calls", ()):
            count += 1
            call["id"] = f"call{count:05d}"
            waiting.append(call["id"])
        if message["role"] == "tool" and waiting:
            message["tool_call_id"] = waiting.pop(0)


def _as_text(messages: list[Message]) -> None:
    for message in messages:
        for call in message.get("tool_calls", ()):
            function = call["function"]
            function["arguments"] = json.dumps(function["arguments"], ensure_ascii=False)
