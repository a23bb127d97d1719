"""Tools in a conversation: where a call stands in the rendering, and that nothing was left out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtune.data.encode.segment import Span
from qtune.data.encode.template import STAND_IN, with_content
from qtune.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qtune.data.encode.messages import Message
    from qtune.data.encode.template import Template

_HINT = "model.chat_template: qwen writes tools, their calls and results"


def check_tools(template: Template, text: str, messages: Sequence[Message]) -> None:
    """`DataError` when the rendering lacks the tools, the name of a call or a result."""
    for index, one in enumerate(messages):
        for call in one.get("tool_calls", ()):
            if call["function"]["name"] not in text:
                raise _left_out(template, f"the call of {call['function']['name']}", index)
        result = one["role"] == "tool" and one["content"].strip() not in text
        # JSON may write a result otherwise than it is, but hardly a plain word
        if result and STAND_IN not in template.render(with_content(messages, index, STAND_IN)):
            raise _left_out(template, "the result of a tool", index)
    if template.tools and text == template.render_without_tools(messages):
        raise DataError(f"{template.name} leaves out the tools of the row", hint=_HINT)


def call_span(
    template: Template, text: str, messages: Sequence[Message], index: int, start: int
) -> Span:
    """The span of an answer that calls tools: all that is written from `start` to its end mark."""
    last = index == len(messages) - 1
    cut = text if last else template.render(messages[: index + 1])
    tail = cut[start:]
    for call in messages[index]["tool_calls"]:
        if call["function"]["name"] not in tail:
            raise _left_out(template, f"the call of {call['function']['name']}", index)
    length, closed = _end(template, messages[: index + 1], tail)
    if cut[:start] != text[:start] or not text.startswith(tail[:length], start):
        raise DataError(
            f"{template.name} writes the call of turn {index + 1} otherwise once the conversation "
            "goes on"
        )
    return Span(start, start + length, closed)


def behind_thinking(
    template: Template, text: str, messages: Sequence[Message], index: int, start: int
) -> int:
    """Where the reasoning in front of a call ends: there its text would begin."""
    other = template.render(with_content(messages, index, STAND_IN))
    begin = other.find(STAND_IN)
    if begin < start or other[:begin] != text[:begin]:
        raise DataError(
            f"{template.name} does not tell where the reasoning of turn {index + 1} ends",
            hint="learn it: loss.train_on_thinking: true",
        )
    return begin


def _end(template: Template, messages: Sequence[Message], tail: str) -> tuple[int, bool]:
    """The end of a turn's text: the mark that ends other answers, if this one ends so, too."""
    plain = {"role": "assistant", "content": STAND_IN}
    after = template.render([*messages[:-1], plain]).rpartition(STAND_IN)[2]
    length, closed = template.end_of_turn(after)
    if closed and tail.endswith(after):
        return len(tail) - len(after) + length, True
    return template.last_mark(tail)


def _left_out(template: Template, what: str, index: int) -> DataError:
    return DataError(f"{template.name} leaves out {what} in turn {index + 1}", hint=_HINT)
