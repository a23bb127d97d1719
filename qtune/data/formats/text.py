"""Plain documents: every token is learnt, long ones are cut into pieces."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtune.data.formats.base import Fields, Format
from qtune.data.row import Turn

if TYPE_CHECKING:
    from qtune.data.row import Example


def _read(fields: Fields) -> tuple[Example, ...]:
    return (fields.example(Turn("text", fields.text("text", may_be_empty=False), train=True)),)


TEXT = Format(name="text", required=("text",), layout="document", read=_read)
