"""Prompt and completion, joined as they stand; the prompt may be built from several columns."""

from __future__ import annotations

from string import Formatter
from typing import TYPE_CHECKING

from qtune.data.formats.base import Fields, Format
from qtune.data.row import Turn
from qtune.errors import UsageError

if TYPE_CHECKING:
    from qtune.data.row import Example


def places(template: str) -> list[str]:
    """The columns that a prompt_template names; `UsageError` when its braces do not fit."""
    try:
        parsed = list(Formatter().parse(template))
    except ValueError as error:
        raise UsageError(
            f"prompt_template {template!r}: {error}", hint="write {{ and }} for braces in the text"
        ) from None
    names = [name for _, name, _, _ in parsed if name is not None]
    wrong = [name for _, name, spec, change in parsed if name == "" or spec or change]
    if wrong or not names:
        what = "names no {column}" if not names else "takes plain {column} places only"
        raise UsageError(f"prompt_template {template!r} {what}")
    return names


def prompt_of(fields: Fields, template: str) -> str:
    """The template with the row's columns in it; numbers are written out."""
    pieces: list[str] = []
    for text, name, _, _ in Formatter().parse(template):
        pieces.append(text)
        if name is not None:
            value = fields.value(name)
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            pieces.append(str(value) if number else fields.checked(name, value))
    return "".join(pieces)


def _read(fields: Fields) -> tuple[Example, ...]:
    template = fields.source.prompt_template
    prompt = fields.text("prompt") if template is None else prompt_of(fields, template)
    completion = fields.text("completion", may_be_empty=False)
    return (fields.example(Turn("prompt", prompt), Turn("completion", completion, train=True)),)


PROMPT_COMPLETION = Format(
    name="prompt-completion",
    required=("prompt", "completion"),
    layout="completion",
    prompted=("prompt",),
    read=_read,
)
