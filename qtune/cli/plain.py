"""A run told in lines, for logs and CI."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from qtune.run.display import evaluation_line, step_line

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from qtune.run.seen import EvaluationNews, StepNews

SECONDS_BETWEEN_PROGRESS = 10.0


class PlainDisplay:
    """One line a fact; progress at most each ten seconds."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last_progress = time.monotonic()

    def line(self, text: str) -> None:
        """A fact."""
        self._console.print(text, markup=False, soft_wrap=True)

    def progress(self, what: str, done: int, total: int) -> None:
        """Long work, told now and then."""
        now = time.monotonic()
        if now - self._last_progress >= SECONDS_BETWEEN_PROGRESS:
            self._last_progress = now
            self.line(f"{what} {done:,}/{total:,}")

    def step(self, event: StepNews) -> None:
        """A step."""
        self.line(step_line(event))

    def evaluation(self, event: EvaluationNews) -> None:
        """An evaluation."""
        self.line(evaluation_line(event))

    def hardware(self, found: Mapping[str, float]) -> None:
        """Nothing: the lines of steps are long enough, and metrics.jsonl has it."""

    def alert(self, text: str) -> None:
        """A warning."""
        self.line(f"warning: {text}")

    def close(self) -> None:
        """Nothing is open."""
