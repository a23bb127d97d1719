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
        return f"{self.file}:{self.number}"


class Turn(NamedTuple):
    """A piece of text with its role; only turns with `train` are learnt."""

    role: str
    text: str
    train: bool = False


@dataclass(frozen=True, slots=True)
class Example:
    """The turns of one row, in order."""

    file: str
    number: int
    turns: tuple[Turn, ...]

    @property
    def place(self) -> str:
        """`train.jsonl:12`, the place that every message names."""
        return f"{self.file}:{self.number}"

    @property
    def answer(self) -> str | None:
        """The last text that is learnt: the reference of a generated answer."""
        return next((turn.text for turn in reversed(self.turns) if turn.train), None)
