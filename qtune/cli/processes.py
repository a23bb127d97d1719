"""`--processes N`: a run in several processes of this machine, as the command line tells it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtune.cli.output import news, print_error
from qtune.errors import ExitCode, QtuneError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def train_in_processes(
    size: int, recipe: Path, settings: Sequence[str], options: Sequence[str]
) -> int:
    """Train a recipe in so many processes; returns the exit code. The first process says what a
    run of one would say; `QtuneError` where it was killed and cannot."""
    from qtune.run.launching.train import train_by

    console = news()

    def say(line: str) -> None:
        console.print(line, markup=False, soft_wrap=True)

    ended = train_by(size, recipe, settings, options, say=say, on_terminal=console.is_terminal)
    if not ended.first_spoke and console.is_terminal:
        console.show_cursor()  # which its panel had hidden
    if ended.fault is not None:
        error = QtuneError.of([ended.fault])
        error.code = ExitCode(ended.code)
        if not ended.first_spoke:
            raise error
        print_error(error)
    return ended.code
