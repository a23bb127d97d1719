"""Unpaired preferences (KTO): one answer to a prompt, and whether it is wanted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtune.data.formats import dialogue
from qtune.data.formats.alpaca import instruction_turns
from qtune.data.formats.base import Fields, Format
from qtune.data.formats.conversation import answered
from qtune.data.formats.tool_calls import tools_of
from qtune.data.readers.jsonl import json_kind
from qtune.data.row import Turn

if TYPE_CHECKING:
    from qtune.data.row import Example


def _read(fields: Fields) -> tuple[Example, ...]:
    part = "desirable" if _wanted(fields) else "undesirable"
    tools = tools_of(fields) if fields.layout == "chat" else ()
    return (fields.example(*_turns(fields), part=part, tools=tools),)


def _wanted(fields: Fields) -> bool:
    label = fields.value("label")
    if not isinstance(label, bool) and label not in (0, 1):
        kind = json_kind(label)
        raise fields.fault("label", f"is {kind}, true (wanted) or false is needed")
    return bool(label)


def _turns(fields: Fields) -> tuple[Turn, ...]:
    if fields.layout == "chat":
        return _conversation(fields)
    answer = fields.text("completion", may_be_empty=False)
    if fields.layout == "instruction":
        return (*instruction_turns(fields), Turn("assistant", answer, train=True))
    return (Turn("prompt", fields.text("prompt")), Turn("completion", answer, train=True))


def _conversation(fields: Fields) -> tuple[Turn, ...]:
    """A whole conversation whose last answer is judged, or a prompt and its completion."""
    if fields.optional("completion") is None:
        field = "conversations" if fields.optional("conversations") is not None else "messages"
        turns = answered(fields, field, dialogue.spoken(fields, field))
        if turns[-1].role != "assistant":
            raise fields.fault(field, "ends on a turn that is not the assistant's")
        return (*dialogue.given(turns[:-1]), turns[-1])
    if isinstance(fields.value("completion"), str):
        text = fields.text("completion", may_be_empty=False)
        return (*dialogue.asked(fields), Turn("assistant", text, train=True))
    turns = dialogue.spoken(fields, "completion")
    return (*dialogue.asked(fields), *answered(fields, "completion", turns))


UNPAIRED = Format(
    name="unpaired",
    required=("label",),
    optional=("prompt", "completion", *dialogue.PROMPTS[:2], "instruction", "input", "tools"),
    layout="chat",
    layout_of=lambda fields: dialogue.layout_of(fields, "completion"),
    purpose="unpaired",
    read=_read,
)
