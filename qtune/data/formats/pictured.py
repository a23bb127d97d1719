"""An image with its label, which the head of a classification learns."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from qtune.data.formats.base import Fields, Format
from qtune.data.formats.labelled import name_of
from qtune.data.formats.readings import LABELS
from qtune.data.row import Turn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qtune.data.row import Example

PICTURED = "pictured"
"""The layout of rows whose input is an image."""
IMAGE = "image"
_COLUMNS = ("image", "file_name", "image_path")
_TEXTS = ("text", "sentence", "messages")


def shows_image(values: Mapping[str, Any], columns: Mapping[str, str]) -> bool:
    """Whether rows are images: a column of them is named, or there is one and none of texts."""
    if IMAGE in columns:
        return True
    texts = any(name in values for name in _TEXTS) or "text" in columns
    return not texts and any(name in values for name in _COLUMNS)


def guessed(values: Mapping[str, Any]) -> dict[str, str]:
    """The columns of image and label by their usual names, where they are there."""
    found = {
        IMAGE: next((name for name in _COLUMNS if name in values), None),
        "label": next((name for name in LABELS if name in values), None),
    }
    return {field: column for field, column in found.items() if column is not None}


def _read(fields: Fields) -> tuple[Example, ...]:
    value = fields.value(IMAGE)
    if not isinstance(value, str):
        hint = "write the images to files: a folder for each label, or a table of paths"
        raise fields.fault(IMAGE, "is no path of a file", hint=hint)
    name = fields.checked(IMAGE, value, may_be_empty=False)
    example = fields.example(Turn("label", name_of(fields), train=True))
    return (replace(example, image=name),)


IMAGE_WITH_LABEL = Format(
    name="classification of images",
    required=(IMAGE, "label"),
    layout=PICTURED,
    prompt="{image}",  # names of labels may be listed
    read=_read,
)
