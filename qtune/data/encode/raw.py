"""Layouts without a chat template: documents, prompt and completion, headed instructions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtune.data.encode.segment import Segment, WrittenRow
from qtune.data.row import Example, Turn
from qtune.errors import DataError

if TYPE_CHECKING:
    from qtune.data.encode.tokens import Tokens


class RawLayout:
    """The texts as they stand, one after the other, and the end of sequence."""

    description = "none: the texts are joined as they stand"

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    def write(self, example: Example) -> tuple[WrittenRow, ...]:
        """Given and learnt segments of a row; `DataError` when it brings its own BOS."""
        return (self.join(example.turns),)

    def join(self, turns: tuple[Turn, ...]) -> WrittenRow:
        """The segments of some turns, whatever row they come from."""
        tokens = self._tokens
        text = next((turn.text for turn in turns if turn.text), "")
        if tokens.adds_bos and text.startswith(tokens.bos_text):
            raise DataError(
                f"the text begins with {tokens.bos_text}, which the tokenizer adds: two in a row",
                hint="take it out of the data; chats belong in a messages column",
            )
        segments = [Segment(turn.text, turn.train, plain=True) for turn in turns if turn.text]
        end = Segment(tokens.eos_text, True, ids=(tokens.eos,))
        return WrittenRow((*segments, end), typed=sum(tokens.typed(turn.text) for turn in turns))


class HeadedLayout:
    """Instructions under headings, for tokenizers without a chat template."""

    description = "### Instruction / ### Input / ### Response headings"

    def __init__(self, tokens: Tokens) -> None:
        self._raw = RawLayout(tokens)

    def write(self, example: Example) -> tuple[WrittenRow, ...]:
        """The instruction under its headings is given, the answer and its end are learnt."""
        *given, answer = example.turns
        parts = [f"### {turn.role.capitalize()}:\n{turn.text}\n\n" for turn in given]
        prompt = "".join([*parts, "### Response:\n"])
        return (self._raw.join((Turn("prompt", prompt), answer)),)
