"""Plain documents: every token is learnt, long ones are cut into pieces."""

from __future__ import annotations

from qtune.data.formats.base import Fields, Format
from qtune.data.row import Turn


def _turns(fields: Fields) -> tuple[Turn, ...]:
    return (Turn("text", fields.text("text", may_be_empty=False), train=True),)


TEXT = Format(name="text", required=("text",), layout="document", turns=_turns)
