"""Conversations through the tokenizer's chat template, learnt span by span.

A span begins where the template's own generation prompt ends, for that is where a model starts to
write, and ends with the end of turn. Scaffolding that a template writes between the two (an empty
thinking block) is given, not learnt.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from qtune.data.encode.segment import Segment, WrittenRow
from qtune.data.encode.template import Message, Template, message, starts_with_content
from qtune.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qtune.data.encode.tokens import Tokens
    from qtune.data.row import Example, Turn

# Private-use characters that stand for a special token typed in a row's own text.
_OPEN, _CLOSE = "\U000f0000", "\U000f0001"
_TYPED = re.compile(f"{_OPEN}(\\d+){_CLOSE}")


class Span(NamedTuple):
    """Characters [start, end) that are learnt; `closed` when they end on a special token."""

    start: int
    end: int
    closed: bool
    scaffold: str


class ChatLayout:
    """Writes conversations with the tokenizer's chat template."""

    description = "the tokenizer's chat template"

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens
        self._template = Template(tokens)
        self._middle: tuple[str, int, bool] | None = None

    def write(self, example: Example) -> WrittenRow:
        """Given and learnt segments of a conversation; `DataError` when they cannot be told."""
        typed: list[str] = []
        messages = [self._message(turn, typed) for turn in example.turns]
        text = self._template.render(messages)
        spans = [
            self._span(text, messages, index)
            for index, turn in enumerate(example.turns)
            if turn.train
        ]
        segments = [*self._segments(text, spans, typed)]
        return WrittenRow(
            tuple(segments),
            typed=len(typed),
            ended=any(not span.closed for span in spans),
            scaffold=next((span.scaffold for span in spans if span.scaffold), ""),
        )

    def _message(self, turn: Turn, typed: list[str]) -> Message:
        """A turn as a message, its special tokens replaced by stand-ins that stay text."""

        def stand_in(found: re.Match[str]) -> str:
            typed.append(found.group())
            return f"{_OPEN}{len(typed) - 1}{_CLOSE}"

        if _OPEN in turn.text:
            raise DataError("the text holds the private-use character U+F0000", hint="remove it")
        special = self._tokens.special
        text = special.sub(stand_in, turn.text) if special else turn.text
        return message(turn.role, text)

    def _span(self, text: str, messages: Sequence[Message], index: int) -> Span:
        content = messages[index]["content"]
        start = self._start(text, messages, index)
        end = starts_with_content(text, start, content)
        scaffold = ""
        if end is None:
            begin, end = self._template.content(text, messages, index)
            scaffold = text[start:begin]
            if begin < start:
                raise DataError("the chat template's prompt reaches into the answer")
            if scaffold.strip():
                start = begin
        length, closed = self._end_of_turn(text, messages, index, end)
        return Span(start, end + length, closed, scaffold if scaffold.strip() else "")

    def _start(self, text: str, messages: Sequence[Message], index: int) -> int:
        """Where the model begins to write turn `index`."""
        if index == 0:
            return self._template.content(text, messages, index)[0]
        prompt = self._template.render(messages[:index], prompt=True)
        if text.startswith(prompt):
            return len(prompt)
        blocks = self._template.blocks(messages)
        answers = [n for n, one in enumerate(messages) if one["role"] == "assistant"]
        if len(blocks) == len(answers):
            return blocks[answers.index(index)][0]
        raise DataError(
            "the chat template writes another prompt for generating than in a finished "
            "conversation, so a model trained on it would meet a prompt it never saw",
            hint="use a template with {% generation %} marks, or train: false on all but the last "
            "answer if only earlier turns differ",
        )

    def _end_of_turn(
        self, text: str, messages: Sequence[Message], index: int, end: int
    ) -> tuple[int, bool]:
        """Length of the end mark after the content, and whether it is a special token."""
        last = index == len(messages) - 1
        if not last and self._middle and text.startswith(self._middle[0], end):
            return self._middle[1:]
        after = self._template.after(text, messages, index, end)
        length, closed = self._template.end_of_turn(after)
        if not last and closed:
            self._middle = (after, length, closed)
        return length, closed

    def _segments(self, text: str, spans: list[Span], typed: list[str]) -> list[Segment]:
        segments: list[Segment] = []
        at = 0
        for span in spans:
            segments += self._pieces(text[at : span.start], typed, trained=False)
            segments += self._pieces(text[span.start : span.end], typed, trained=True)
            if not span.closed:
                tokens = self._tokens
                segments.append(Segment(tokens.eos_text, True, token=tokens.eos))
            at = span.end
        return [*segments, *self._pieces(text[at:], typed, trained=False)]

    @staticmethod
    def _pieces(text: str, typed: list[str], *, trained: bool) -> list[Segment]:
        """A stretch of the rendering, with the typed special tokens back as plain text."""
        parts = _TYPED.split(text)
        return [
            Segment(typed[int(part)], trained, plain=True) if odd % 2 else Segment(part, trained)
            for odd, part in enumerate(parts)
            if part
        ]
