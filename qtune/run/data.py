"""`qtune data`: the encoded rows to look at, to measure and to check; no weights are read."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from qtune import data, recipe
from qtune.data.batch import collate, filler_id
from qtune.data.pieces import Piece, labelled_pieces, pictured_pieces, pieces
from qtune.errors import UsageError
from qtune.run.display import Journal
from qtune.run.labels import named
from qtune.run.reading import doing, load_reader

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from qtune.data import Prepared, Rows
    from qtune.recipe.sections import Recipe
    from qtune.run.display import Display


@dataclass(frozen=True, slots=True)
class Opened:
    """A recipe with its tokenizer and its encoded rows."""

    name: str
    recipe: Recipe
    tokenizer: Any
    prepared: Prepared


@dataclass(frozen=True, slots=True)
class ShownRow:
    """One row as training sees it; `number` counts the rows from 1."""

    number: int
    place: str
    pieces: tuple[Piece, ...]

    @property
    def tokens(self) -> int:
        """All tokens."""
        return sum(len(piece.ids) for piece in self.pieces)

    @property
    def learnt(self) -> int:
        """Learnt tokens."""
        return sum(len(piece.ids) for piece in self.pieces if piece.learnt)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "number": self.number,
            "place": self.place,
            "tokens": self.tokens,
            "learnt_tokens": self.learnt,
            "pieces": [
                {"text": p.text, "ids": list(p.ids), "learnt": p.learnt, "special": p.special}
                for p in self.pieces
            ],
        }


@dataclass(frozen=True, slots=True)
class Preview:
    """Some rows of a recipe."""

    name: str
    total: int
    rows: tuple[ShownRow, ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        shown = [row.to_dict() for row in self.rows]
        return {"recipe": self.name, "training_rows": self.total, "rows": shown}


@dataclass(frozen=True, slots=True)
class Choice:
    """Which rows to show: the first few, some by number, or some drawn by a seed."""

    count: int
    numbers: tuple[int, ...] = ()
    seed: int | None = None

    def of(self, rows: Rows) -> list[int]:
        """Row numbers from 0; `UsageError` for one that is not there."""
        if self.numbers:
            for number in self.numbers:
                if not 1 <= number <= len(rows):
                    raise UsageError(f"there are rows 1 to {len(rows):,}", place=f"--rows {number}")
            return [number - 1 for number in self.numbers]
        count = min(self.count, len(rows))
        if self.seed is None:
            return list(range(count))
        drawn = np.random.default_rng(self.seed).choice(len(rows), count, replace=False)
        return sorted(drawn.tolist())


def open_data(path: str | Path, *, overrides: Sequence[str], display: Display) -> Opened:
    """Read, check and encode the rows of a recipe; `DataError` lists what is wrong with them."""
    loaded = named(recipe.load(path, overrides))
    tokenizer = load_reader(loaded.recipe.model)
    prepared = data.prepare(
        loaded.recipe, tokenizer, on_progress=partial(Journal(display).progress, doing(tokenizer))
    )
    return Opened(loaded.name, loaded.recipe, tokenizer, prepared)


def preview(
    path: str | Path, choice: Choice, *, overrides: Sequence[str] = (), display: Display
) -> Preview:
    """Some training rows, read back from the tensors that training would use."""
    opened = open_data(path, overrides=overrides, display=display)
    rows = opened.prepared.train
    classifies = opened.recipe.model.task == "classification"
    pad = 0 if rows.pictures is not None else filler_id(opened.tokenizer)
    shown = []
    for number in choice.of(rows):
        if rows.pictures is not None:
            own = tuple(pictured_pieces(rows[number], rows.pictures.told(rows[number])))
        elif classifies:
            own = tuple(labelled_pieces(rows[number], opened.tokenizer))
        else:
            own = tuple(pieces(collate([rows[number]], pad_id=pad), 0, opened.tokenizer))
        shown.append(ShownRow(number + 1, rows[number].place, own))
    return Preview(opened.name, len(rows), tuple(shown))
