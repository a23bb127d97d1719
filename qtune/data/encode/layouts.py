"""Which layout writes the rows of a format with this tokenizer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from qtune.data.encode.chat import ChatLayout
from qtune.data.encode.given import GivenLayout
from qtune.data.encode.raw import HeadedLayout, RawLayout
from qtune.data.row import Example, Turn
from qtune.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qtune.data.encode.segment import WrittenRow
    from qtune.data.encode.tokens import Tokens


class Layout(Protocol):
    """Writes the turns of a row as text, given and learnt."""

    description: str

    def write(self, example: Example) -> tuple[WrittenRow, ...]:
        """The segments of a row, or of several that teach an answer each; `DataError` without a
        place when it cannot be written."""


class InstructionLayout:
    """Instruction rows as one exchange through the chat template."""

    description = ChatLayout.description

    def __init__(self, tokens: Tokens, variables: Mapping[str, Any] | None = None) -> None:
        self._chat = ChatLayout(tokens, variables)

    def write(self, example: Example) -> tuple[WrittenRow, ...]:
        """The instruction and its input become the user's turn."""
        *given, answer = example.turns
        asked = Turn("user", "\n\n".join(turn.text for turn in given))
        return self._chat.write(Example(example.file, example.number, (asked, answer)))


def layout_for(kind: str, tokens: Tokens, *, variables: Mapping[str, Any] | None = None) -> Layout:
    """The layout of a kind; `variables` go to the chat template.

    Raises `DataError` when chats meet a tokenizer without a chat template.
    """
    has_template = bool(tokens.tokenizer.chat_template)
    if kind == "chat" and not has_template:
        raise DataError(
            "the tokenizer has no chat template, which chat rows need",
            hint="use the tokenizer of an instruct model (model.tokenizer), or prompt-completion",
        )
    if kind == "chat":
        return ChatLayout(tokens, variables)
    if kind == "tokens":
        return GivenLayout(tokens)
    if kind == "instruction":
        return InstructionLayout(tokens, variables) if has_template else HeadedLayout(tokens)
    return RawLayout(tokens)
