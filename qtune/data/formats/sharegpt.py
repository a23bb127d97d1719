"""ShareGPT conversations: objects with `from` and `value`, under many spellings of the roles."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtune.data.formats.base import Fields, Format
from qtune.data.formats.conversation import read_turns

if TYPE_CHECKING:
    from qtune.data.row import Example

ROLES = {
    **dict.fromkeys(("human", "user", "prompter", "question"), "user"),
    **dict.fromkeys(
        ("gpt", "assistant", "chatgpt", "bing", "bard", "model", "bot", "chatbot", "ai", "answer"),
        "assistant",
    ),
    "system": "system",
}


def _read(fields: Fields) -> tuple[Example, ...]:
    turns = read_turns(fields, "conversations", role_key="from", text_key="value", roles=ROLES)
    return (fields.example(*turns),)


SHAREGPT = Format(name="sharegpt", required=("conversations",), layout="chat", read=_read)
