"""Turns as the messages that chat templates expect: OpenAI's objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qtune.data.encode.typed import Typed
    from qtune.data.row import Turn

Message = dict[str, Any]


def messages_of(turns: Sequence[Turn], typed: Typed, *, numbered: bool = False) -> list[Message]:
    """The messages of some turns; with `numbered` every tool call has an id that its result names.

    Few data sets hold such ids and few templates write them, but Mistral's refuse to go without.
    """
    messages = [_message(turn, typed) for turn in turns]
    if numbered:
        _number(messages)
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
