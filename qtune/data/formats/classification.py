"""Classification: a text and its label, whose name is learnt as an answer.

The prompt is `{text}`, an empty line and `Label:` with a line break, or what prompt_template says.
A label is a name, or a number when the source says the names (`labels`: a list, or a file).
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

from qtune.data.formats.base import Fields, Format
from qtune.data.formats.labels import Labels, labels_of
from qtune.data.formats.prompt_completion import prompt_of
from qtune.data.readers.jsonl import json_kind
from qtune.data.row import Turn
from qtune.errors import first_few

if TYPE_CHECKING:
    from qtune.data.row import Example

PROMPT = "{text}\n\nLabel:\n"


def _read(fields: Fields) -> tuple[Example, ...]:
    template = fields.source.prompt_template
    if template is None:
        fields.text("text", may_be_empty=False)
        template = PROMPT
    answer = Turn("completion", _label(fields), train=True)
    return (fields.example(Turn("prompt", prompt_of(fields, template)), answer),)


def _label(fields: Fields) -> str:
    """The name of the row's label."""
    value = fields.value("label")
    labels = labels_of(fields.source)
    if isinstance(value, int) and not isinstance(value, bool):
        return _named(fields, value, labels)
    if not isinstance(value, str):
        raise fields.fault("label", f"is {json_kind(value)}, text or a whole number is needed")
    name = fields.checked("label", value, may_be_empty=False).strip()
    if labels is None or name in labels.names:
        return name
    if name.isdecimal():
        return _named(fields, int(name), labels)
    close = get_close_matches(name, labels.names, n=1)
    hint = f"did you mean {close[0]}?" if close else f"labels: {first_few(labels.names, most=5)}"
    raise fields.fault("label", f"{name!r} is none of the {len(labels.names)} labels", hint=hint)


def _named(fields: Fields, number: int, labels: Labels | None) -> str:
    if labels is None:
        raise fields.fault(
            "label",
            f"is the number {number}, its name is needed",
            hint="give the source labels: a list of names from 0, or the path of a file",
        )
    if number in labels.numbered:
        return labels.numbered[number]
    first, last = min(labels.numbered), max(labels.numbered)
    raise fields.fault("label", f"is {number}, labels are numbered from {first} to {last}")


CLASSIFICATION = Format(
    name="classification",
    required=("text", "label"),
    layout="completion",
    prompted=("text",),
    prompt=PROMPT,
    read=_read,
)
