"""Chat messages as OpenAI writes them: objects with `role` and `content`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtune.data.formats.base import Fields, Format
from qtune.data.formats.conversation import Dialect, conversation

if TYPE_CHECKING:
    from qtune.data.row import Example

DIALECT = Dialect(
    role_key="role",
    text_key="content",
    roles={
        "system": "system",
        "developer": "system",
        "user": "user",
        "assistant": "assistant",
        "tool": "tool",
        "function": "tool",
    },
)


def _read(fields: Fields) -> tuple[Example, ...]:
    return (conversation(fields, "messages", DIALECT),)


MESSAGES = Format(
    name="messages",
    required=("messages",),
    optional=("tools", "system"),
    layout="chat",
    read=_read,
)
