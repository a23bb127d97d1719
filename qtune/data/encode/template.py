"""The tokenizer's chat template: conversations to text, and where the answers stand in it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from qtune.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qtune.data.encode.tokens import Tokens

Message = dict[str, str]
_MARK = re.compile(r"\{%[-+]?\s*generation\s*[-+]?%\}")
_STAND_IN = "Qz0standin0zQ"


class Template:
    """Renders conversations in transformers' sandbox."""

    def __init__(self, tokens: Tokens, variables: Mapping[str, Any] | None = None) -> None:
        self._variables = dict(variables or {})
        self._tokenizer = tokens.tokenizer
        self._special = tokens.special
        self._bos_text = tokens.bos_text
        self._eos_text = tokens.eos_text
        self.source: str = self._tokenizer.get_chat_template()

    def render(self, messages: Sequence[Message], *, prompt: bool = False) -> str:
        """The conversation as text; with `prompt` it ends where the next answer begins."""
        try:
            text: str = self._tokenizer.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=prompt, **self._variables
            )
        except Exception as error:  # a template is foreign code: whatever it raises is its refusal
            reason = " ".join(str(error).split()) or type(error).__name__
            raise DataError(f"the chat template refuses this conversation: {reason}") from None
        return text

    def blocks(self, messages: Sequence[Message]) -> list[tuple[int, int]]:
        """Character ranges of the template's {% generation %} blocks, none if it has no marks."""
        if not _MARK.search(self.source):
            return []
        from transformers.utils.chat_template_utils import render_jinja_template

        _, ranges = render_jinja_template(
            conversations=[list(messages)],
            chat_template=self.source,
            return_assistant_tokens_mask=True,
            **self._tokenizer.special_tokens_map,
            **self._variables,
        )
        return [(start, end) for start, end in ranges[0] if end > start]

    def content(self, text: str, messages: Sequence[Message], index: int) -> tuple[int, int]:
        """Where the content of one message stands in the rendering `text`.

        The conversation is rendered again with a stand-in for that message; everything before and
        after must be the same text, so the place is proven, not searched for.
        """
        changed = [*messages[:index], {**messages[index], "content": _STAND_IN}]
        other = self.render([*changed, *messages[index + 1 :]])
        begin = other.find(_STAND_IN)
        after = other[begin + len(_STAND_IN) :]
        if begin >= 0 and other[:begin] == text[:begin] and text.endswith(after):
            end = len(text) - len(after)
            if text[begin:end] in _spellings(messages[index]["content"]):
                return begin, end
        raise DataError(
            f"the chat template rewrites or leaves out the text of turn {index + 1}, so what it "
            "would teach is not the answer"
        )

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

    def _begins(self, special: str) -> bool:
        return special == self._bos_text != self._eos_text

    def after(self, text: str, messages: Sequence[Message], index: int, end: int) -> str:
        """What belongs to turn `index` behind its content, which ends at `end` of `text`."""
        if index == len(messages) - 1:
            return text[end:]
        alone = messages[: index + 1]
        cut = self.render(alone)
        _, cut_end = self.content(cut, alone, index)
        alike = _common(text[end:], cut[cut_end:])
        # Where the two part before any mark, this template ends turns in the middle with nothing.
        whole = alike.rstrip() == cut[cut_end:].rstrip()
        return alike if whole or self.end_of_turn(alike)[1] else ""


def starts_with_content(text: str, at: int, content: str) -> int | None:
    """The end of `content` when `text` goes on with it at `at`, as it is or trimmed."""
    for spelling in _spellings(content):
        # blanks trimmed to nothing would be found everywhere: `Template.content` proves their place
        if spelling and text.startswith(spelling, at):
            return at + len(spelling)
    return None


def _common(one: str, other: str) -> str:
    """What two texts begin with together."""
    pairs = enumerate(zip(one, other, strict=False))
    return one[: next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))]


def _spellings(content: str) -> tuple[str, ...]:
    """The content as templates write it: as it is, or without the white space around it."""
    return content, content.rstrip(), content.lstrip(), content.strip()


def message(role: str, content: str) -> Message:
    """One message as chat templates expect it."""
    return {"role": role, "content": content}
