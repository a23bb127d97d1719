"""Preference pairs: two answers to one prompt, the first of them preferred.

The prompt is a text, an instruction with perhaps an input, a list of turns, or part of both
answers, where these are conversations: lists, or one text with `Human:` and `Assistant:` in it.
Learnt is what the two do not have in common.
"""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING

from qtune.data.formats import dialogue
from qtune.data.formats.alpaca import instruction_turns
from qtune.data.formats.base import Fields, Format
from qtune.data.formats.tool_calls import tools_of
from qtune.data.row import Turn

if TYPE_CHECKING:
    from qtune.data.row import Example

PARTS = ("chosen", "rejected")


def _read(fields: Fields) -> tuple[Example, ...]:
    chosen, rejected = (_turns(fields, part) for part in PARTS)
    if chosen == rejected:
        raise fields.fault(
            "chosen",
            f"is the same as {fields.column('rejected')}, so the pair prefers nothing",
            hint="take the row out, or data.on_bad_row: skip",
        )
    if fields.layout == "chat":
        pairs = zip(chosen, rejected, strict=False)
        shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        chosen, rejected = (_learnt_from(turns, shared) for turns in (chosen, rejected))
    tools = tools_of(fields) if fields.layout == "chat" else ()
    return (
        fields.example(*chosen, part="chosen", tools=tools),
        fields.example(*rejected, part="rejected", tools=tools),
    )


def _turns(fields: Fields, part: str) -> tuple[Turn, ...]:
    """The prompt and one of the answers."""
    if fields.layout == "chat":
        return _conversation(fields, part)
    answer = fields.text(part, may_be_empty=False)
    if fields.layout == "instruction":
        return (*instruction_turns(fields), Turn("assistant", answer, train=True))
    prompt = Turn("prompt", fields.optional_text("prompt"))
    return (prompt, Turn("completion", answer, train=True))


def _conversation(fields: Fields, part: str) -> tuple[Turn, ...]:
    """The turns of the prompt, unless the answer repeats them, and those of the answer."""
    said = fields.value(part)
    answer: tuple[Turn, ...]
    if dialogue.is_transcript(said):
        answer = dialogue.transcript(fields, part)
    elif isinstance(said, str):
        text = fields.checked(part, said, may_be_empty=False)
        answer = (Turn("assistant", text, train=True),)
    else:
        answer = dialogue.spoken(fields, part)
    if answer[-1].role != "assistant":
        raise fields.fault(part, f"ends on a turn of the {answer[-1].role}, not the assistant's")
    prompt = dialogue.asked(fields)
    repeats = any(turn.role in ("system", "user") for turn in answer[: len(prompt)])
    return answer if repeats else (*prompt, *answer)


def _learnt_from(turns: tuple[Turn, ...], shared: int) -> tuple[Turn, ...]:
    """The turns with nothing learnt in what both answers share."""
    shared = min(shared, len(turns) - 1)
    return (*dialogue.given(turns[:shared]), *turns[shared:])


PREFERENCE = Format(
    name="preference",
    required=PARTS,
    optional=("prompt", "messages", "conversations", "instruction", "input", "tools"),
    layout="chat",
    layout_of=lambda fields: dialogue.layout_of(fields, *PARTS),
    purpose="preference",
    read=_read,
)
