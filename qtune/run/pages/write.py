"""The page of a run, written into its folder; a page that cannot be made ends no run."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from qtune.durable import write_text
from qtune.run.pages.run_page import run_page
from qtune.run.pages.side_page import side_page
from qtune.run.pages.told import tell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

NAME = "report.html"


def write_page(folder: Path, target: Path | None = None, *, held: bool | None = None) -> Path:
    """Make the page of a run folder, at its place in there or at `target`; returns where."""
    place = target or folder / NAME
    write_text(place, run_page(tell(folder, held=held)))
    return place


def write_side_page(folders: Sequence[Path], target: Path) -> Path:
    """Make the page of several runs at `target`."""
    write_text(target, side_page([tell(folder) for folder in folders]))
    return target


@contextmanager
def leaving_page(folder: Path, tell_person: Callable[[str], None]) -> Iterator[None]:
    """However the block ends, the run folder has its page; why not is only told."""
    try:
        yield
    finally:
        try:
            write_page(folder, held=False)
        except Exception as error:
            tell_person(f"{NAME} could not be made: {type(error).__name__}: {error}")
