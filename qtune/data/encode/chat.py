"""Conversations through the chat template, learnt span by span.

A span begins where the template's own generation prompt ends, for that is where a model starts to
write, and ends with the end of turn. Scaffolding that a template writes between the two (an empty
thinking block) is given, not learnt; reasoning of the row's own is, unless the recipe says no.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from qtune.data.encode.calls import call_span, check_tools, last_call
from qtune.data.encode.messages import Calls, messages_of
from qtune.data.encode.segment import Segment, Span, WrittenRow
from qtune.data.encode.settings import ChatSettings
from qtune.data.encode.template import Template, common, starts_with_content
from qtune.data.encode.thoughts import set_apart
from qtune.data.encode.typed import Typed
from qtune.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qtune.data.encode.messages import Message
    from qtune.data.encode.tokens import Tokens
    from qtune.data.row import Example

# A prompt that ends inside a thought: an answer put behind it would be part of the thought.
_OPEN_THOUGHT = re.compile(r"<think>(?!.*</think>)\s*\Z", re.DOTALL)


class ChatLayout:
    """Writes conversations with the chat template."""

    def __init__(self, tokens: Tokens, settings: ChatSettings | None = None) -> None:
        self._tokens = tokens
        self._settings = settings or ChatSettings()
        self._template = Template(tokens, self._settings)
        self._middle: tuple[str, int, bool] | None = None
        self._calls = Calls.PLAIN
        self.description = self._settings.name

    def write(self, example: Example) -> tuple[WrittenRow, ...]:
        """Given and learnt segments of a conversation; `DataError` when they cannot be told.

        A template that writes an answer otherwise once the conversation goes on (it strips the
        thinking, say) makes a row of each answer, as it stands when it is the last. Reasoning in
        the text of an answer that the template takes for reasoning is seen so too.
        """
        self._calls = Calls.PLAIN  # no row depends on those before it
        try:
            return self._rows(example)
        except DataError as error:
            if not any(turn.tool_calls for turn in example.turns):
                raise
            return self._with_other_calls(example, error)

    def _rows(self, example: Example) -> tuple[WrittenRow, ...]:
        apart = set_apart(example)
        if apart is None or not self._same(example, apart):
            return self._proven(example)
        rows = self._proven(apart)
        return tuple(replace(row, answer=row.answer or apart.answer or "") for row in rows)

    def _same(self, example: Example, apart: Example) -> bool:
        """Whether both are the same text up to each learnt answer, and hold its reasoning."""
        for number, turn in enumerate(apart.turns):
            if turn.train:
                one, other = (
                    self._plain_text(replace(each, turns=each.turns[: number + 1]))
                    for each in (example, apart)
                )
                if one != other or turn.thinking not in one:
                    return False
        return True

    def _plain_text(self, example: Example) -> str:
        """The rendering, typed special tokens and all."""
        messages, typed = self._messages(example)
        pieces = typed.pieces(self._template.render(messages), trained=True)
        return "".join(piece.text for piece in pieces)

    def _proven(self, example: Example) -> tuple[WrittenRow, ...]:
        """One row, or one for each answer."""
        learnt = [number for number, turn in enumerate(example.turns) if turn.train]
        try:
            return (self._row(example, learnt),)
        except DataError as error:
            if learnt == [len(example.turns) - 1]:
                return (self._after_prompt(example, error),)
            if not learnt:
                raise
        upto = (replace(example, turns=example.turns[: number + 1]) for number in learnt)
        return tuple(self._alone(one) for one in upto)

    def _with_other_calls(self, example: Example, error: DataError) -> tuple[WrittenRow, ...]:
        """The rows with the calls in another shape; or the last error."""
        for self._calls in (Calls.NUMBERED, Calls.AS_TEXT):
            try:
                return self._rows(example)
            except DataError as refusal:
                error = refusal
        raise error

    def _alone(self, example: Example) -> WrittenRow:
        """The last turn as the only answer that is learnt."""
        try:
            row = self._row(example, [len(example.turns) - 1])
        except DataError as error:
            row = self._after_prompt(example, error)
        return replace(row, unrolled=True, answer=row.answer or example.turns[-1].text)

    def _row(self, example: Example, learnt: Sequence[int]) -> WrittenRow:
        """The finished conversation as one row; `DataError` unless every span is proven."""
        messages, typed = self._messages(example)
        text = self._template.render(messages)
        check_tools(self._template, text, messages)
        spans = [self._span(text, messages, n) for n in learnt]
        return self._written(text, spans, typed, messages[learnt[-1]] if learnt else {})

    def _after_prompt(self, example: Example, error: DataError) -> WrittenRow:
        """The prompt for generating the last answer, then the answer and its end mark.

        That is what a model meets when it is used, so it is right even where the template writes
        another prompt in a finished conversation. Raises `error` where it cannot be had.
        """
        last = len(example.turns) - 1
        if not last:
            raise error
        messages, typed = self._messages(example)
        prompt = self._template.render(messages[:last], prompt=True)
        finished = self._template.render(messages)
        check_tools(self._template, finished, messages)
        begin, end, closed = self._last_answer(finished, messages)
        thought = messages[last].get("reasoning_content", "").strip()
        if thought and thought in finished:
            at = self._template.thought(finished, messages)
            if at is None or finished[:at].rstrip() != prompt.rstrip():
                raise error
            text = prompt + finished[at:end]
            start = len(prompt) + (0 if self._settings.thinking else begin - at)
            span = Span(start, len(text), closed)
            if finished[:at] != prompt:
                asked = self._template.render(messages[:last])
                span = span._replace(scaffold=prompt[len(common(prompt, asked)) :])
            return self._written(text, [span], typed, messages[last])
        head = finished[:begin].rstrip()
        asks = prompt != self._template.render(messages[:last])
        if _OPEN_THOUGHT.search(prompt) or not (
            asks or _closed_alike(head, prompt, messages[last - 1])
        ):
            raise error
        # a blank that the template writes in front of answers only is the model's to write
        if not prompt[-1:].isspace() and not prompt.startswith(finished[:begin]):
            begin = len(head)
        text = prompt + finished[begin:end]
        span = Span(len(prompt), len(text), closed, unthought=bool(thought))
        return self._written(text, [span], typed, messages[last])

    def _last_answer(self, text: str, messages: Sequence[Message]) -> tuple[int, int, bool]:
        """Where the last turn begins and ends, and whether on a special token."""
        if messages[-1].get("tool_calls"):
            return last_call(self._template, text, messages)
        begin, end = self._template.content(text, messages, len(messages) - 1)
        length, closed = self._template.end_of_turn(text[end:])
        return begin, end + length, closed

    def _messages(self, example: Example) -> tuple[list[Message], Typed]:
        """The turns as messages and the tools for the template, with stand-ins for typed tokens."""
        typed = Typed(self._tokens.special)
        self._template.tools = typed.hide(example.tools) or None
        return messages_of(example.turns, typed, self._calls), typed

    def _written(self, text: str, spans: list[Span], typed: Typed, last: Message) -> WrittenRow:
        """The row of a text; `last` is the last message that is learnt."""
        return WrittenRow(
            tuple(self._segments(text, spans, typed)),
            answer=self._reference(text, spans, typed, last),
            typed=len(typed),
            ended=any(not span.closed for span in spans),
            scaffold=next((span.scaffold for span in spans if span.scaffold), ""),
            unthought=any(span.unthought for span in spans),
        )

    def _reference(self, text: str, spans: list[Span], typed: Typed, last: Message) -> str:
        """What a generated answer is held against, where that is more than the turn's text: its
        calls and its reasoning, as they are learnt."""
        thought = last.get("reasoning_content") and self._settings.thinking
        if not thought and not last.get("tool_calls"):
            return ""
        pieces = typed.pieces(text[spans[-1].start : spans[-1].end], trained=True)
        special = self._tokens.special
        texts = (p.text if p.plain or not special else special.sub("", p.text) for p in pieces)
        return "".join(texts).strip()

    def _span(self, text: str, messages: Sequence[Message], index: int) -> Span:
        one = messages[index]
        start = self._start(text, messages, index)
        if one.get("tool_calls"):
            return self._call(text, messages, index, start)
        thought = one.get("reasoning_content", "").strip()
        end = starts_with_content(text, start, one["content"])
        scaffold = ""
        if end is None:
            begin, end = self._template.content(text, messages, index)
            scaffold = text[start:begin]
            if begin < start:
                raise DataError("the chat template's prompt reaches into the answer")
            learns = self._settings.thinking and thought and thought in scaffold
            start = begin if scaffold.strip() and not learns else start
        unthought = bool(thought) and thought not in scaffold
        self._refuse_forgetful(unthought, messages, index)
        length, closed = self._end_of_turn(text, messages, index, end)
        given = "" if thought else scaffold
        return Span(start, end + length, closed, given if given.strip() else "", unthought)

    def _call(self, text: str, messages: Sequence[Message], index: int, start: int) -> Span:
        """The span of an answer that calls tools, with its reasoning or behind it."""
        thinking = self._settings.thinking
        span = call_span(self._template, text, messages, index, start, thinking=thinking)
        self._refuse_forgetful(span.unthought, messages, index)
        return span

    def _refuse_forgetful(self, unthought: bool, messages: Sequence[Message], index: int) -> None:
        """Reasoning that stands in last answers only needs a row of each answer."""
        if unthought and index < len(messages) - 1 and self._template.writes_thinking:
            raise DataError(f"the chat template leaves out the reasoning of turn {index + 1}")

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

    def _segments(self, text: str, spans: list[Span], typed: Typed) -> list[Segment]:
        segments: list[Segment] = []
        at = 0
        for span in spans:
            segments += typed.pieces(text[at : span.start], trained=False)
            segments += typed.pieces(text[span.start : span.end], trained=True)
            if not span.closed:
                tokens = self._tokens
                segments.append(Segment(tokens.eos_text, True, ids=(tokens.eos,)))
            at = span.end
        return [*segments, *typed.pieces(text[at:], trained=False)]


def _closed_alike(head: str, prompt: str, question: Message) -> bool:
    """Whether what stands between question and answer ends a prompt too: `[/INST]`, say."""
    between = head.rpartition(question["content"].rstrip())[2]
    return bool(between) and prompt.rstrip().endswith(between)
