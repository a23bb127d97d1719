"""Alpaca rows: an instruction, perhaps with an input, and the output to learn."""

from __future__ import annotations

from qtune.data.formats.base import Fields, Format
from qtune.data.row import Turn


def _turns(fields: Fields) -> tuple[Turn, ...]:
    instruction = Turn("instruction", fields.text("instruction", may_be_empty=False))
    answer = Turn("assistant", fields.text("output", may_be_empty=False), train=True)
    given = fields.optional_text("input")
    return (instruction, Turn("input", given), answer) if given else (instruction, answer)


ALPACA = Format(
    name="alpaca",
    required=("instruction", "output"),
    optional=("input",),
    layout="instruction",
    turns=_turns,
)
