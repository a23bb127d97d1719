"""A text, a pair of texts or a chat with its label, which the head of a classification learns.

A label is a name, or a number of one: of those that the source or the recipe lists.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from qtune.data.formats.base import Fields, Format
from qtune.data.formats.conversation import read_turns
from qtune.data.formats.labels import labels_of
from qtune.data.formats.messages import DIALECT
from qtune.data.formats.prompt_completion import prompt_of
from qtune.data.formats.readings import LABELS
from qtune.data.readers.jsonl import json_kind
from qtune.data.row import Turn
from qtune.errors import first_few

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qtune.data.row import Example

LABELLED = "labelled"
"""What stands in a source's `format` when its rows are for a head."""
CHAT = "messages"
PAIRS = (
    ("text", "text_pair"),
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
)


def guessed(values: Mapping[str, Any]) -> dict[str, str]:
    """The columns of a pair of texts and of a label by their usual names, where they are there."""
    label = next((name for name in LABELS if name in values), None)
    columns = {} if label is None else {"label": label}
    for one, other in PAIRS:
        if one in values and other in values:
            return columns | {"text": one, "text_pair": other}
    return columns


def name_of(fields: Fields) -> str:
    """The name of a row's label; its number as text where no names are listed."""
    value = fields.value("label")
    if not isinstance(value, str | int):
        raise fields.fault("label", f"is {json_kind(value)}, text or a whole number is needed")
    name = str(value).strip()
    if isinstance(value, bool):
        name = name.lower()
    if not name:
        raise fields.fault("label", "is empty")
    labels = labels_of(fields.source)
    if labels is None or name in labels.names:
        return fields.checked("label", name)
    number = int(value) if isinstance(value, int) or name.isdecimal() else None
    if number in labels.numbered:
        return labels.numbered[number]
    close = get_close_matches(name, labels.names, n=1)
    hint = f"did you mean {close[0]}?" if close else f"labels: {first_few(labels.names, most=5)}"
    raise fields.fault("label", f"{name!r} is none of the {len(labels.names)} labels", hint=hint)


def _texts(fields: Fields) -> tuple[Example, ...]:
    template = fields.source.prompt_template
    if template is None:
        turns = [Turn("text", fields.text("text", may_be_empty=False))]
    else:
        turns = [Turn("text", prompt_of(fields, template))]
    if second := fields.optional_text("text_pair"):
        turns.append(Turn("pair", second))
    return (fields.example(*turns, Turn("label", name_of(fields), train=True)),)


def _chat(fields: Fields) -> tuple[Example, ...]:
    label = Turn("label", name_of(fields), train=True)
    turns = read_turns(fields, CHAT, fields.value(CHAT), DIALECT)
    given = [turn._replace(train=False, asked=False) for turn in turns]
    return (fields.example(*given, label),)


TEXT_WITH_LABEL = Format(
    name="classification",
    required=("text", "label"),
    optional=("text_pair",),
    layout=LABELLED,
    prompted=("text",),
    prompt="{text}",
    read=_texts,
)
CHAT_WITH_LABEL = Format(
    name="classification",
    required=("messages", "label"),
    layout=LABELLED,
    prompt="{messages}",
    read=_chat,
)
