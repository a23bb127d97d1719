"""Which layout writes the rows of a format with this tokenizer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from qtune.data.encode.chat import ChatLayout
from qtune.data.encode.given import GivenLayout
from qtune.data.encode.raw import HeadedLayout, RawLayout
from qtune.data.row import Example, Turn
from qtune.errors import DataError

if TYPE_CHECKING:
    from qtune.data.encode.segment import WrittenRow
    from qtune.data.encode.settings import ChatSettings
    from qtune.data.encode.tokens import Tokens


class Layout(Protocol):
    """Writes the turns of a row as text, given and learnt."""

    description: str

    def write(self, example: Example) -> tuple[WrittenRow, ...]:
        """The segments of a row, or of several that teach an answer each; `DataError` without a
        place when it cannot be written."""


class InstructionLayout:
    """Instruction rows as one exchange through the chat template."""

    def __init__(self, tokens: Tokens, settings: ChatSettings | None = None) -> None:
        self._chat = ChatLayout(tokens, settings)
        self.description = self._chat.description

    def write(self, example: Example) -> tuple[WrittenRow, ...]:
        """The instruction and its input become the user's turn."""
        *given, answer = example.turns
        asked = Turn("user", "\n\n".join(turn.text for turn in given))
        return self._chat.write(Example(example.file, example.number, (asked, answer)))


def layout_for(kind: str, tokens: Tokens, settings: ChatSettings | None = None) -> Layout:
    """The layout of a kind; the settings are for what is written with the chat template.

    Raises `DataError` when chats meet a tokenizer without a chat template.
    """
    has_template = bool(tokens.tokenizer.chat_template)
    if kind == "chat" and not has_template:
        raise DataError(
            "the tokenizer has no chat template, which chat rows need",
            hint="name one: model.chat_template, or take the tokenizer of an instruct model",
        )
    if kind == "chat":
        return ChatLayout(tokens, settings)
    if kind == "tokens":
        return GivenLayout(tokens)
    if kind == "instruction":
        return InstructionLayout(tokens, settings) if has_template else HeadedLayout(tokens)
    return RawLayout(tokens)
