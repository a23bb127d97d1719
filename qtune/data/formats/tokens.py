"""Rows that are tokenised already: ids, and which of them are learnt.

`labels` repeat the ids that are learnt and hold -100 elsewhere; a `mask` holds 0 or 1 instead.
Without either, every token is learnt.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from qtune.data.formats.base import Fields, Format
from qtune.data.readers.jsonl import json_kind

if TYPE_CHECKING:
    from qtune.data.row import Example

MASKS = ("mask", "completion_mask", "assistant_masks", "loss_mask")
NOT_LEARNT = -100


def _read(fields: Fields) -> tuple[Example, ...]:
    ids = _integers(fields, "input_ids", least=0)
    learnt = _learnt(fields, ids)
    if not any(learnt):
        field = "labels" if fields.optional("labels") is not None else "mask"
        raise fields.fault(field, "learns no token")
    return (replace(fields.example(), ids=ids, learnt=learnt),)


def _learnt(fields: Fields, ids: tuple[int, ...]) -> tuple[bool, ...]:
    mask = next((name for name in MASKS if fields.optional(name) is not None), None)
    if fields.optional("labels") is not None:
        labels = _alike(fields, "labels", len(ids))
        for number, (own, label) in enumerate(zip(ids, labels, strict=True), 1):
            if label not in (NOT_LEARNT, own):
                what = f"number {number} is {label}, its id {own} or {NOT_LEARNT} is needed"
                raise fields.fault("labels", what, hint="labels are not shifted")
        return tuple(label != NOT_LEARNT for label in labels)
    if mask is None:
        return (True,) * len(ids)
    flags = _alike(fields, mask, len(ids))
    wrong = next((number for number, flag in enumerate(flags, 1) if flag not in (0, 1)), None)
    if wrong is not None:
        raise fields.fault(mask, f"number {wrong} is {flags[wrong - 1]}, 0 or 1 is needed")
    return tuple(flag == 1 for flag in flags)


def _alike(fields: Fields, field: str, length: int) -> tuple[int, ...]:
    numbers = _integers(fields, field, least=NOT_LEARNT)
    if len(numbers) != length:
        what = f"has {len(numbers)} numbers, {fields.column('input_ids')} has {length}"
        raise fields.fault(field, what)
    return numbers


def _integers(fields: Fields, field: str, *, least: int) -> tuple[int, ...]:
    items = fields.filled_list(field, of="integers")
    for number, item in enumerate(items, 1):
        if type(item) is not int:
            raise fields.fault(field, f"number {number} is {_kind(item)}, an integer is needed")
        if item < least:
            raise fields.fault(field, f"number {number} is {item}, {least} or more is needed")
    return tuple(items)


def _kind(item: Any) -> str:
    return f"{item}" if isinstance(item, float) else json_kind(item)


TOKENS = Format(
    name="tokens",
    required=("input_ids",),
    optional=("labels", *MASKS),
    layout="tokens",
    read=_read,
)
