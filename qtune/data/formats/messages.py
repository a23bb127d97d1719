"""Chat messages as OpenAI writes them: objects with `role` and `content`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtune.data.formats.base import Fields, Format
from qtune.data.formats.conversation import read_turns

if TYPE_CHECKING:
    from qtune.data.row import Example

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


def _read(fields: Fields) -> tuple[Example, ...]:
    turns = read_turns(fields, "messages", role_key="role", text_key="content", roles=ROLES)
    return (fields.example(*turns),)


MESSAGES = Format(name="messages", required=("messages",), layout="chat", read=_read)
