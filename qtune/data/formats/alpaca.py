"""Alpaca rows: an instruction, perhaps with an input, and the output to learn."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtune.data.formats.base import Fields, Format
from qtune.data.row import Turn

if TYPE_CHECKING:
    from qtune.data.row import Example


def instruction_turns(fields: Fields) -> tuple[Turn, ...]:
    """The instruction, and its input where there is one."""
    instruction = Turn("instruction", fields.text("instruction", may_be_empty=False))
    given = fields.optional_text("input")
    return (instruction, Turn("input", given)) if given else (instruction,)


def _read(fields: Fields) -> tuple[Example, ...]:
    asked = instruction_turns(fields)
    answer = Turn("assistant", fields.text("output", may_be_empty=False), train=True)
    return (fields.example(*asked, answer),)


ALPACA = Format(
    name="alpaca",
    required=("instruction", "output"),
    optional=("input",),
    layout="instruction",
    read=_read,
)
