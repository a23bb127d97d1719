"""The chat template: conversations to text, and where the answers stand in it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from qtune.data.encode.thoughts import END as THOUGHT_END
from qtune.errors import DataError
from qtune.templates.limits import Limits
from qtune.templates.source import fault_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qtune.data.encode.messages import Message
    from qtune.data.encode.settings import ChatSettings
    from qtune.data.encode.tokens import Tokens

_MARK = re.compile(r"\{%[-+]?\s*generation\s*[-+]?%\}")
# What templates call the reasoning of an answer; transformers hands it over under all of them.
_THOUGHTS = ("reasoning_content", "reasoning", "thinking")
STAND_IN = "Qz0standin0zQ"


class Template:
    """Renders conversations in transformers' sandbox; `tools` are those of the present one."""

    def __init__(self, tokens: Tokens, settings: ChatSettings) -> None:
        self.name = settings.name
        self.tools: list[dict[str, Any]] | None = None
        self._variables = dict(settings.variables)
        self._tokenizer = tokens.tokenizer
        self._special = tokens.special
        self._bos_text = tokens.bos_text
        self._eos_text = tokens.eos_text
        self._limits = Limits(settings.name)
        self._refuse_faulty()

    def render(self, messages: Sequence[Message], *, prompt: bool = False) -> str:
        """The conversation as text; with `prompt` it ends where the next answer begins."""
        return self._render(messages, self.tools, prompt=prompt)

    def render_without_tools(self, messages: Sequence[Message]) -> str:
        """The conversation as it would be if nobody had said which tools there are."""
        return self._render(messages, None)

    def _render(
        self,
        messages: Sequence[Message],
        tools: list[dict[str, Any]] | None,
        *,
        prompt: bool = False,
    ) -> str:
        def render() -> str:
            text: str = self._tokenizer.apply_chat_template(
                list(messages),
                tools=tools,
                tokenize=False,
                add_generation_prompt=prompt,
                **self._variables,
            )
            return text

        text = self._limits.call(render)
        self._limits.check(text, messages)
        return text

    def blocks(self, messages: Sequence[Message]) -> list[tuple[int, int]]:
        """Character ranges of the template's {% generation %} blocks, none if it has no marks."""
        source: str = self._tokenizer.get_chat_template(tools=self.tools)
        if not _MARK.search(source):
            return []
        from transformers.utils.chat_template_utils import render_jinja_template

        def render() -> list[list[tuple[int, int]]]:
            found: list[list[tuple[int, int]]] = render_jinja_template(
                conversations=[list(messages)],
                tools=self.tools,
                chat_template=source,
                return_assistant_tokens_mask=True,
                **self._tokenizer.special_tokens_map,
                **self._variables,
            )[1]
            return found

        return [(start, end) for start, end in self._limits.call(render)[0] if end > start]

    @property
    def writes_thinking(self) -> bool:
        """Whether the template has a place for reasoning."""
        source = self._tokenizer.get_chat_template(tools=self.tools)
        return any(f".{name}" in source or f"'{name}'" in source for name in _THOUGHTS)

    def content(self, text: str, messages: Sequence[Message], index: int) -> tuple[int, int]:
        """Where the content of one message stands in the rendering `text`.

        The conversation is rendered again with a stand-in for that message; everything before and
        after must be the same text, so the place is proven, not searched for.
        """
        other = self.render(with_content(messages, index, STAND_IN))
        begin = other.find(STAND_IN)
        after = other[begin + len(STAND_IN) :]
        if begin >= 0 and other[:begin] == text[:begin] and text.endswith(after):
            end = len(text) - len(after)
            if text[begin:end] in _spellings(messages[index]["content"]):
                return begin, end
        reasons = THOUGHT_END in messages[index]["content"]
        raise DataError(
            f"the chat template rewrites or leaves out the text of turn {index + 1}, so what it "
            "would teach is not the answer",
            hint=f"it takes what stands before {THOUGHT_END} for reasoning: take that out, or set "
            "another model.chat_template"
            if reasons
            else "",
        )

    def thought(self, text: str, messages: Sequence[Message]) -> int | None:
        """Where the reasoning of the last message begins in `text`; None if it is not there."""
        last = {**messages[-1], "reasoning_content": STAND_IN}
        other = self.render([*messages[:-1], last])
        begin = other.find(STAND_IN)
        return begin if begin >= 0 and other[:begin] == text[:begin] else None

    def end_of_turn(self, after: str) -> tuple[int, bool]:
        """Length of the end mark that follows an answer, and whether it is a special token.

        `after` is what the template writes between this answer and the next turn. The mark is the
        first special token, and on to the end of sequence where that follows at once (Command A
        closes the response, then the turn).
        """
        found = self._special.search(after) if self._special else None
        if self._special is None or found is None or self._begins(found.group()):
            return len(after.rstrip()), False
        first = end = found.end()
        while found and found.group() != self._eos_text:
            found = self._special.match(after, end)
            end = found.end() if found else end
        return end if found else first, True

    def last_mark(self, tail: str) -> tuple[int, bool]:
        """Where the text that ends a conversation ends, and whether on a special token."""
        end = len(tail.rstrip())
        marks = list(self._special.finditer(tail)) if self._special else []
        closed = bool(marks) and marks[-1].end() == end and not self._begins(marks[-1].group())
        return end, closed

    def after(self, text: str, messages: Sequence[Message], index: int, end: int) -> str:
        """What belongs to turn `index` behind its content, which ends at `end` of `text`."""
        if index == len(messages) - 1:
            return text[end:]
        alone = messages[: index + 1]
        cut = self.render(alone)
        _, cut_end = self.content(cut, alone, index)
        alike = common(text[end:], cut[cut_end:])
        # Where the two part before any mark, this template ends turns in the middle with nothing.
        whole = alike.rstrip() == cut[cut_end:].rstrip()
        return alike if whole or self.end_of_turn(alike)[1] else ""

    def _begins(self, special: str) -> bool:
        return special == self._bos_text != self._eos_text

    def _refuse_faulty(self) -> None:
        try:
            fault = fault_of(self._tokenizer.get_chat_template())
        except ValueError as error:  # several templates by name, and none for plain chats
            raise DataError(str(error).splitlines()[0], hint="set model.chat_template") from None
        if fault:
            line = f" (line {fault.line})" if fault.line else ""
            raise DataError(f"{self.name} {fault.message}{line}", hint="set model.chat_template")


def with_content(messages: Sequence[Message], index: int, content: str) -> list[Message]:
    """The messages, one of them with another text."""
    changed = {**messages[index], "content": content}
    return [*messages[:index], changed, *messages[index + 1 :]]


def starts_with_content(text: str, at: int, content: str) -> int | None:
    """The end of `content` when `text` goes on with it at `at`, as it is or trimmed."""
    for spelling in _spellings(content):
        # blanks trimmed to nothing would be found everywhere: `Template.content` proves their place
        if spelling and text.startswith(spelling, at):
            return at + len(spelling)
    return None


def common(one: str, other: str) -> str:
    """What two texts begin with together."""
    pairs = enumerate(zip(one, other, strict=False))
    return one[: next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))]


def _spellings(content: str) -> tuple[str, ...]:
    """The content as templates write it: as it is, or without the white space around it."""
    return content, content.rstrip(), content.lstrip(), content.strip()
