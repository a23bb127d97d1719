"""What passes between the seats: a row of a file, and the turns a format makes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple


class Row(NamedTuple):
    """One row as it was read: the label of its file, its line or number (1-based), its columns."""

    file: str
    number: int
    values: dict[str, Any]

    @property
    def place(self) -> str:
        """`train.jsonl:12`, the place that every message names."""
        return place_of(self.file, self.number, str(self.values.get("image", "")))


def place_of(file: str, number: int, image: str = "") -> str:
    """`train.jsonl:12`; of an image in the folder of its label, which has no line, its path."""
    return f"{file}:{number}" if number else f"{file}/{image}"


class Turn(NamedTuple):
    """A piece of text with its role; only turns with `train` are learnt.

    `asked`: the row itself said `train: true` (or weight 1), which `train_on: field` looks at.
    `thinking`: the reasoning in front of an answer. `tool_calls`: OpenAI's objects, each
    `{"type": "function", "function": {"name": ..., "arguments": {...}}}`; `name`: the tool that a
    turn of the role `tool` comes from.
    """

    role: str
    text: str
    train: bool = False
    asked: bool = False
    thinking: str = ""
    tool_calls: tuple[dict[str, Any], ...] = ()
    name: str = ""


@dataclass(frozen=True, slots=True)
class Example:
    """The turns of one row, in order; a row may hold several examples, told apart by `part`.

    `part`: "chosen", "rejected", "desirable", "instance 2" ... `tools`: JSON schemas for the chat
    template. `ids` and `learnt`: a row that is tokenised already; it has no turns then.
    `group`: the value of the column data.split_by. `image`: the file that is seen, as the row
    names it.
    """

    file: str
    number: int
    turns: tuple[Turn, ...]
    part: str = ""
    tools: tuple[dict[str, Any], ...] = ()
    ids: tuple[int, ...] = ()
    learnt: tuple[bool, ...] = ()
    group: str = ""
    image: str = ""

    @property
    def place(self) -> str:
        """`train.jsonl:12`, the place that every message names."""
        return place_of(self.file, self.number, self.image) + (
            f" ({self.part})" if self.part else ""
        )

    @property
    def answer(self) -> str | None:
        """The last text that is learnt: the reference of a generated answer."""
        return next((turn.text for turn in reversed(self.turns) if turn.train), None)
