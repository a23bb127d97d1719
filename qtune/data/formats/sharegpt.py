"""ShareGPT conversations: objects with `from` and `value`, under many spellings of the roles."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtune.data.formats.base import Fields, Format
from qtune.data.formats.conversation import CALL, Dialect, conversation

if TYPE_CHECKING:
    from qtune.data.row import Example

_ANSWERING = "gpt assistant chatgpt bing bard model bot chatbot ai answer"
_CALLING = "function_call function-call tool_call"
_OBSERVING = "observation tool function tool_response function_response function-response"
DIALECT = Dialect(
    role_key="from",
    text_key="value",
    roles={
        **dict.fromkeys(("human", "user", "prompter", "question"), "user"),
        **dict.fromkeys(_ANSWERING.split(), "assistant"),
        **dict.fromkeys(_CALLING.split(), CALL),
        **dict.fromkeys(_OBSERVING.split(), "tool"),
        "system": "system",
    },
)


def _read(fields: Fields) -> tuple[Example, ...]:
    return (conversation(fields, "conversations", DIALECT),)


SHAREGPT = Format(
    name="sharegpt",
    required=("conversations",),
    optional=("tools", "system"),
    layout="chat",
    read=_read,
)
