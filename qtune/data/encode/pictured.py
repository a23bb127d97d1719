"""Rows for the head of a classifier of images: the hash of the image's file, as many numbers as it
has tokens, and the number of the label behind them.

The pixels stay in their file: they are decoded for the step that learns them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtune.data.encode.labelled import labelled, with_label
from qtune.data.pictures import NUMBERS
from qtune.data.report import UNREADABLE
from qtune.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from qtune.data.faults import Faults
    from qtune.data.pictures import Pictures
    from qtune.data.report import SourceReport
    from qtune.data.row import Example
    from qtune.data.rows import Encoded
    from qtune.recipe.sections import Recipe

DESCRIPTION = "the model's own image processor; the label is for the head"


class PicturedEncoder:
    """Encodes images with their labels; `folders` are what paths are relative to, by file."""

    def __init__(self, pictures: Pictures, recipe: Recipe, folders: Mapping[str, Path]) -> None:
        self._pictures = pictures
        self._folders = folders
        self._numbers = {name: number for number, name in enumerate(recipe.model.labels)}
        self._skips = recipe.data.on_bad_row == "skip"
        self.stop_ids: set[int] = set()

    def encode(
        self, examples: Sequence[Example], report: SourceReport, faults: Faults
    ) -> Iterator[Encoded]:
        """The usable rows of some examples; what is wrong with others goes to `faults`."""
        for example in examples:
            label = labelled(example, self._numbers, faults)
            if label is None:
                continue
            path = self._folders[example.file] / example.image
            try:
                identity = self._pictures.identity(path, place=example.place)
            except DataError as error:
                if self._skips:
                    report.dropped[UNREADABLE] += 1
                else:
                    faults.add_error(error)
                continue
            ids = [*identity, *[0] * (self._pictures.tokens - NUMBERS)]
            report.longest_read = max(report.longest_read, len(ids))
            report.used += 1
            yield with_label(example, ids, label, first=len(ids), image=str(path.absolute()))
