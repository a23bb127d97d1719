"""`qtune train --processes N`: what can be refused at once, then the run in so many processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtune import ranks, recipe
from qtune.errors import ResourceError, UsageError
from qtune.plan.cores import cores
from qtune.plan.machine import gpus
from qtune.run.comparison.children import QTUNE
from qtune.run.labels import named
from qtune.run.launching.crew import launch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from qtune.run.launching.crew import Outcome

OPTION = "--processes"


def number_of(asked: str | None) -> int:
    """How many processes to start; `auto` is one a visible GPU, and one on a CPU.
    `ResourceError` where there are fewer GPUs."""
    if asked is None:
        return 1
    if ranks.seat().size > 1:
        raise UsageError(
            "the processes of this run have been started already (WORLD_SIZE is set)",
            place=OPTION,
            hint=f"leave {OPTION} away under torchrun or accelerate launch",
        )
    if asked == "auto":
        return max(1, len(gpus()))
    if not asked.isdecimal() or int(asked) < 1:
        raise UsageError(
            f"{asked!r} is no number of processes", place=OPTION, hint="such as 2, or auto"
        )
    cards = len(gpus())
    if cards and int(asked) > cards:
        said = f"{asked} processes, and {cards} visible GPU{'s' if cards > 1 else ''}"
        raise ResourceError(said, place=OPTION, hint=f"{OPTION} auto takes one a GPU")
    return int(asked)


def train_by(
    size: int,
    path: str | Path,
    settings: Sequence[str],
    options: Sequence[str],
    *,
    say: Callable[[str], object],
    on_terminal: bool,
) -> Outcome:
    """Train a recipe in so many processes of this machine: `options` are those of each."""
    named(recipe.load(path, settings))  # a fault is said once, before anything starts
    if size > cores() and not gpus():
        say(f"warning: {size} processes share {cores()} cores")
    words = [word for setting in settings for word in ("--set", setting)]
    command = [*QTUNE, "train", *words, *options, "--", str(path)]
    return launch(command, size, say=say, on_terminal=on_terminal)
