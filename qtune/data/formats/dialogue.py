"""Conversations inside rows of another kind: a prompt and what may follow it, as turns."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from qtune.data.formats import messages, sharegpt
from qtune.data.formats.conversation import read_turns
from qtune.data.row import Turn

if TYPE_CHECKING:
    from qtune.data.formats.base import Fields

PROMPTS = ("messages", "conversations", "prompt")
# hh-rlhf writes conversations as one text.
_SPEAKER = re.compile(r"(?:^\s*|\n\n)(Human|Assistant):")
_SPEAKERS = {"Human": "user", "Assistant": "assistant"}


def layout_of(fields: Fields, *answers: str) -> str:
    """Which layout rows of prompts and answers call for, by the shape of the first one."""
    values = [fields.optional(name) for name in (*PROMPTS, *answers)]
    if any(isinstance(value, list | dict) for value in values):
        return "chat"
    if values[: len(PROMPTS)] == [None] * len(PROMPTS) and any(map(is_transcript, values)):
        return "chat"
    return "completion" if fields.optional("instruction") is None else "instruction"


def spoken(fields: Fields, field: str) -> tuple[Turn, ...]:
    """The turns in a field: a list of them, or one alone, with either pair of keys."""
    value = fields.value(field)
    items = [value] if isinstance(value, dict) else value
    return read_turns(fields, field, items, sharegpt.DIALECT if _from(items) else messages.DIALECT)


def is_transcript(value: Any) -> bool:
    """Whether a text is a conversation in which `Human:` speaks first."""
    found = _SPEAKER.match(value) if isinstance(value, str) else None
    return found is not None and found[1] == "Human"


def transcript(fields: Fields, field: str) -> tuple[Turn, ...]:
    """The turns of a conversation that is one text."""
    _, *parts = _SPEAKER.split(fields.text(field))
    turns = []
    for number, (speaker, said) in enumerate(zip(parts[::2], parts[1::2], strict=True), 1):
        role = _SPEAKERS[speaker]
        answers = role == "assistant"
        text = fields.checked(field, said.strip(), may_be_empty=not answers, at=f"turn {number} ")
        turns.append(Turn(role, text, train=answers))
    return tuple(turns)


def asked(fields: Fields) -> tuple[Turn, ...]:
    """The turns that stand before an answer; none of them is learnt."""
    field = next((name for name in PROMPTS if fields.optional(name) is not None), None)
    if field is None:
        return ()
    if isinstance(fields.value(field), str):
        return (Turn("user", fields.text(field)),)
    return given(spoken(fields, field))


def given(turns: tuple[Turn, ...]) -> tuple[Turn, ...]:
    """The same turns, not learnt."""
    return tuple(turn._replace(train=False, asked=False) for turn in turns)


def _from(items: Any) -> bool:
    first = items[0] if isinstance(items, list) and items else None
    return isinstance(first, dict) and "from" in first
