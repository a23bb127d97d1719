"""A folder of images: the name of the folder is their label."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtune.data.row import Row
from qtune.recipe.kinds import is_image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from qtune.data.faults import Faults
    from qtune.recipe.inputs import SourceSection

NO_LINE = 0
"""The number of a row that has no line: its image tells where it stands."""


def read(path: Path, label: str, source: SourceSection, faults: Faults) -> Iterator[Row]:
    """The images of one folder in the order of their names; other files are recorded."""
    del source
    for entry in sorted(path.iterdir()):
        if entry.name.startswith("."):
            continue
        if entry.is_file() and is_image(entry):
            yield Row(label, NO_LINE, {"image": entry.name, "label": path.name})
            continue
        what = "a folder within the folder of a label" if entry.is_dir() else "no image by its name"
        faults.add(what, place=f"{label}/{entry.name}", hint="take it out")
