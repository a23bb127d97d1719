"""Multiple choice: a question, its lettered choices, and the letter of the right one to learn.

The prompt is the question, a line for each choice and `Answer:`; the answer is the letter alone,
so that exact match is accuracy.
"""

from __future__ import annotations

import string
from typing import TYPE_CHECKING, Any

from qtune.data.formats.base import Fields, Format
from qtune.data.readers.jsonl import json_kind
from qtune.data.row import Turn

if TYPE_CHECKING:
    from qtune.data.row import Example

LETTERS = string.ascii_uppercase


def _read(fields: Fields) -> tuple[Example, ...]:
    question = fields.text("query", may_be_empty=False)
    texts, labels = choices_of(fields)
    right = gold_of(fields, texts, labels)
    lines = [f"{LETTERS[number]}. {text}" for number, text in enumerate(texts)]
    prompt = "\n".join([question, *lines, "Answer:", ""])
    answer = Turn("completion", LETTERS[right], train=True)
    return (fields.example(Turn("prompt", prompt), answer),)


def choices_of(fields: Fields) -> tuple[list[str], list[Any]]:
    """The texts of the choices, and the labels that ARC's files give them."""
    value = fields.value("choices")
    labels: list[Any] = []
    if isinstance(value, dict) and isinstance(value.get("label"), list):
        labels = value["label"]
        value = value.get("text")
    if not isinstance(value, list):
        raise fields.fault("choices", f"is {json_kind(value)}, a list of texts is needed")
    if not 2 <= len(value) <= len(LETTERS):
        what = f"has {len(value)} choices, 2 to {len(LETTERS)} are needed"
        raise fields.fault("choices", what)
    texts = [
        fields.checked("choices", text, may_be_empty=False, at=f"choice {number} ")
        for number, text in enumerate(value, 1)
    ]
    return texts, labels


def gold_of(fields: Fields, texts: list[str], labels: list[Any]) -> int:
    """The number of the right choice: it is given as such, as a label, a letter or the text."""
    gold = fields.value("gold")
    if isinstance(gold, int) and not isinstance(gold, bool):
        if 0 <= gold < len(texts):
            return gold
        raise fields.fault("gold", f"is {gold}, choices count from 0 to {len(texts) - 1}")
    said = fields.checked("gold", gold, may_be_empty=False)
    for names in (labels, list(LETTERS[: len(texts)]), texts):
        if said in names[: len(texts)]:
            return names.index(said)
    hint = f"a number from 0 to {len(texts) - 1}, a letter, or the text of a choice"
    raise fields.fault("gold", f"{said!r} is none of the choices", hint=hint)


MULTIPLE_CHOICE = Format(
    name="multiple-choice",
    required=("query", "choices", "gold"),
    layout="completion",
    read=_read,
)
