"""Conversations through the tokenizer's chat template, learnt span by span.

A span begins where the template's own generation prompt ends, for that is where a model starts to
write, and ends with the end of turn. Scaffolding that a template writes between the two (an empty
thinking block) is given, not learnt.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from qtune.data.encode.segment import Segment, WrittenRow
from qtune.data.encode.template import Message, Template, message, starts_with_content
from qtune.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qtune.data.encode.tokens import Tokens
    from qtune.data.row import Example, Turn

# Private-use characters that stand for a special token typed in a row's own text.
_OPEN, _CLOSE = "\U000f0000", "\U000f0001"
# A prompt that ends inside a thought: an answer put behind it would be part of the thought.
_OPEN_THOUGHT = re.compile(r"<think>(?!.*</think>)\s*\Z", re.DOTALL)
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

    def __init__(self, tokens: Tokens, variables: Mapping[str, Any] | None = None) -> None:
        self._tokens = tokens
        self._template = Template(tokens, variables)
        self._middle: tuple[str, int, bool] | None = None

    def write(self, example: Example) -> tuple[WrittenRow, ...]:
        """Given and learnt segments of a conversation; `DataError` when they cannot be told.

        A template that writes an answer otherwise once the conversation goes on (it strips the
        thinking, say) makes a row of each answer, as it stands when it is the last.
        """
        learnt = [number for number, turn in enumerate(example.turns) if turn.train]
        try:
            return (self._row(example.turns, learnt),)
        except DataError as error:
            if len(learnt) < 2:
                return (self._after_prompt(example.turns, learnt, error),)
        return tuple(self._alone(example.turns[: number + 1]) for number in learnt)

    def _alone(self, turns: Sequence[Turn]) -> WrittenRow:
        """The last of some turns as the only answer that is learnt."""
        last = [len(turns) - 1]
        try:
            row = self._row(turns, last)
        except DataError as error:
            row = self._after_prompt(turns, last, error)
        return replace(row, unrolled=True, answer=turns[-1].text)

    def _row(self, turns: Sequence[Turn], learnt: Sequence[int]) -> WrittenRow:
        """The finished conversation as one row; `DataError` unless every span is proven."""
        typed: list[str] = []
        messages = [self._message(turn, typed) for turn in turns]
        text = self._template.render(messages)
        return self._written(text, [self._span(text, messages, n) for n in learnt], typed)

    def _after_prompt(
        self, turns: Sequence[Turn], learnt: Sequence[int], error: DataError
    ) -> WrittenRow:
        """The prompt for generating the last answer, then the answer and its end mark.

        That is what a model meets when it is used, so it is right even where the template writes
        another prompt in a finished conversation. Raises `error` where it cannot be had.
        """
        last = len(turns) - 1
        if list(learnt) != [last] or not last:
            raise error
        typed: list[str] = []
        messages = [self._message(turn, typed) for turn in turns]
        prompt = self._template.render(messages[:last], prompt=True)
        finished = self._template.render(messages)
        begin, end = self._template.content(finished, messages, last)
        head = finished[:begin].rstrip()
        asks = prompt != self._template.render(messages[:last])
        if _OPEN_THOUGHT.search(prompt) or not (
            asks or _closed_alike(head, prompt, messages[last - 1])
        ):
            raise error
        length, closed = self._template.end_of_turn(finished[end:])
        # a blank that the template writes in front of answers only is the model's to write
        begin = begin if prompt[-1:].isspace() else len(head)
        text = prompt + finished[begin : end + length]
        return self._written(text, [Span(len(prompt), len(text), closed, "")], typed)

    def _written(self, text: str, spans: list[Span], typed: list[str]) -> WrittenRow:
        return WrittenRow(
            tuple(self._segments(text, spans, typed)),
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
                segments.append(Segment(tokens.eos_text, True, ids=(tokens.eos,)))
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


def _closed_alike(head: str, prompt: str, question: Message) -> bool:
    """Whether what stands between question and answer ends a prompt too: `[/INST]`, say."""
    between = head.rpartition(question["content"].rstrip())[2]
    return bool(between) and prompt.rstrip().endswith(between)
