"""The table of an earlier sweep in the folder: a new one takes its place only with all its runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtune.artefacts import read_object
from qtune.errors import ResumeError
from qtune.run.sweeping.axes import shown
from qtune.run.sweeping.search import TRIALS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from qtune.run.sweeping.axes import Axis

REPORT = "sweep.json"


def require_whole(
    folder: Path, axes: Sequence[Axis], *, seeds: Sequence[int], trials: int | None
) -> None:
    """`ResumeError` where the new table would be without runs of the one that is there."""
    if (folder / REPORT).is_file():
        for before in _lost(folder, axes, seeds, trials or 0):
            raise ResumeError(
                f"the sweep in this folder was made with {before}",
                place=str(folder / REPORT),
                hint="ask for all of it and more, or name another folder with -o",
            )


def _lost(folder: Path, axes: Sequence[Axis], seeds: Sequence[int], trials: int) -> Iterator[str]:
    """What was asked for then and is not now."""
    there = read_object(folder / REPORT)
    over, now = there["over"], {axis.key: axis.values for axis in axes}
    if list(over) != list(now):  # their order is in the names of the runs
        yield f"--over {' --over '.join(over)}"
    for key, values in over.items():
        if any(value not in now[key] for value in values):
            yield f"--over {key}={','.join(map(shown, values))}"
    begun = folder / TRIALS
    searched = len(read_object(begun)["trials"]) if begun.is_file() else 0
    if trials < searched or (trials and not searched):
        yield f"--trials {searched}" if searched else "no --trials"
    runs = {run["run"] for row in there["rows"] for run in row["seeds"]}
    if others := runs - {f"seed-{seed}" for seed in seeds}:
        yield ", ".join(sorted(others))
