"""Tools in a conversation: where a call stands in the rendering, and that nothing was left out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtune.data.encode.segment import Span
from qtune.data.encode.template import STAND_IN, common, with_content
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
    template: Template,
    text: str,
    messages: Sequence[Message],
    index: int,
    start: int,
    *,
    thinking: bool,
) -> Span:
    """The span of an answer that calls tools: all that is written from `start` to its end mark,
    with the reasoning if `thinking`."""
    last = index == len(messages) - 1
    upto = messages[: index + 1]
    cut = text if last else template.render(upto)
    before, after = _around_an_answer(template, upto)
    end, closed = _end(template, cut, start, after)
    _check_names(template, cut[start:end], upto)
    if cut[:start] != text[:start] or not text.startswith(cut[start:end], start):
        raise DataError(
            f"{template.name} writes the call of turn {index + 1} otherwise once the conversation "
            "goes on"
        )
    # scaffolding that stands in front of any answer here (an empty thinking block) is given
    given = before[start:]
    given = given if given.strip() and cut.startswith(given, start) else ""
    thought = messages[index].get("reasoning_content", "").strip()
    if not thought:
        return Span(start + len(given), end, closed, given)
    unthought = thought not in cut[start:end]
    if thinking or unthought:
        return Span(start, end, closed, unthought=unthought)
    if thought not in given:
        raise DataError(
            f"{template.name} does not tell where the reasoning of turn {index + 1} ends",
            hint="learn it: loss.train_on_thinking: true",
        )
    return Span(start + len(given), end, closed)


def last_call(template: Template, text: str, messages: Sequence[Message]) -> tuple[int, int, bool]:
    """Where the calls of the last turn begin and end, and whether on a special token."""
    before, after = _around_an_answer(template, messages)
    begin = len(before)
    if not text.startswith(before):
        raise DataError(f"{template.name} writes answers with and without calls differently")
    end, closed = _end(template, text, begin, after)
    _check_names(template, text[begin:end], messages)
    return begin, end, closed


def _around_an_answer(template: Template, messages: Sequence[Message]) -> tuple[str, str]:
    """What would stand before and behind an answer in place of the last turn's calls."""
    plain = {key: value for key, value in messages[-1].items() if key != "tool_calls"}
    text = template.render([*messages[:-1], {**plain, "content": STAND_IN}])
    before, found, after = text.partition(STAND_IN)
    if not found:
        raise DataError(f"{template.name} leaves out the text of turn {len(messages)}")
    return before, after


def _end(template: Template, text: str, start: int, after: str) -> tuple[int, bool]:
    """Where a turn ends: at its first mark among what ends an answer without calls, too."""
    tail = text[start:]
    shared = common(tail[::-1], after[::-1])
    length, closed = template.end_of_turn(after[len(after) - len(shared) :])
    if closed:
        return len(text) - len(shared) + length, True
    length, closed = template.last_mark(tail)
    return start + length, closed


def _check_names(template: Template, written: str, messages: Sequence[Message]) -> None:
    for call in messages[-1]["tool_calls"]:
        name = call["function"]["name"]
        if name not in written:
            raise _left_out(template, f"the call of {name}", len(messages) - 1)


def _left_out(template: Template, what: str, index: int) -> DataError:
    return DataError(f"{template.name} leaves out {what} in turn {index + 1}", hint=_HINT)
