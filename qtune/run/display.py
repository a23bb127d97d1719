"""What a command tells while it works; the command line decides how it looks."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from qtune.errors import QtuneError
from qtune.runs.page import portable_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from qtune.run.seen import EvaluationNews, StepNews


class Display(Protocol):
    """Where the news of a run go."""

    def line(self, text: str) -> None:
        """A fact worth a line."""

    def progress(self, what: str, done: int, total: int) -> None:
        """Long work: `done` of `total` units; called often."""

    def step(self, event: StepNews) -> None:
        """An optimizer step that is to be logged; its loss is the mean since the last one."""

    def evaluation(self, event: EvaluationNews) -> None:
        """Held-out measures."""

    def hardware(self, found: Mapping[str, float]) -> None:
        """What the machine did since the last time, by name (see metrics.jsonl)."""

    def alert(self, text: str) -> None:
        """Something to look after, said once."""

    def close(self) -> None:
        """The work is over, well or not."""


class Quiet:
    """A display that shows nothing."""

    def line(self, text: str) -> None:
        """Nothing."""

    def progress(self, what: str, done: int, total: int) -> None:
        """Nothing."""

    def step(self, event: StepNews) -> None:
        """Nothing."""

    def evaluation(self, event: EvaluationNews) -> None:
        """Nothing."""

    def hardware(self, found: Mapping[str, float]) -> None:
        """Nothing."""

    def alert(self, text: str) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class Journal:
    """Passes the news on to a display and keeps them as lines for log.txt.

    Lines are held back until the run folder exists: a run that is refused leaves no folder.
    """

    def __init__(self, display: Display) -> None:
        self._display = display
        self._held: list[str] = []
        self._path: Path | None = None

    def write_to(self, path: Path) -> None:
        """From now on append to `path`, the held lines first."""
        self._path = path
        held, self._held = self._held, []
        for text in held:
            self._keep(text)

    def line(self, text: str) -> None:
        """Show and keep a line."""
        self._keep(text)
        self._display.line(text)

    def progress(self, what: str, done: int, total: int) -> None:
        """Show only: progress is of no use afterwards."""
        self._display.progress(what, done, total)

    def step(self, event: StepNews) -> None:
        """Show and keep a step."""
        self._keep(step_line(event))
        self._display.step(event)

    def evaluation(self, event: EvaluationNews) -> None:
        """Show and keep an evaluation."""
        self._keep(evaluation_line(event))
        self._display.evaluation(event)

    def hardware(self, found: Mapping[str, float]) -> None:
        """Show only: metrics.jsonl has it."""
        self._display.hardware(found)

    def alert(self, text: str) -> None:
        """Show and keep a warning."""
        self._keep(f"warning: {text}")
        self._display.alert(text)

    def close(self) -> None:
        """Close the display."""
        self._display.close()

    @contextmanager
    def keeping_errors(self) -> Iterator[None]:
        """An error that ends the work stands in the log, too; it is shown by who catches it."""
        try:
            yield
        except QtuneError as error:
            self._keep(f"error: {error}")
            raise

    def _keep(self, text: str) -> None:
        text = portable_text(text)  # the log goes where the run goes
        if self._path is None:
            self._held.append(text)
            return
        # file names may hold bytes that are no UTF-8
        with self._path.open("a", encoding="utf-8", errors="backslashreplace") as stream:
            stream.write(text + "\n")


def step_line(event: StepNews) -> str:
    """A step on one line."""
    width = len(str(event.total))
    return (
        f"step {event.step:>{width}}/{event.total}  loss {event.loss:.4f}"
        f"  norm {event.grad_norm:.3g}  lr {event.learning_rate:.2e}"
        f"  {event.tokens_per_second:,.0f} tokens/s{limit_text(event)}"
    )


def limit_text(event: StepNews) -> str:
    """How near a step came to what the machine can do, where that is known."""
    return "" if event.limit_share is None else f" ({event.limit_share:.0%} of the limit)"


def evaluation_line(event: EvaluationNews) -> str:
    """An evaluation on one line."""
    measures = "  ".join(f"{name} {value:.4f}" for name, value in event.measures.items())
    took = "" if event.seconds is None else f"  ({event.seconds:.1f} s)"
    return f"eval at step {event.step}  {measures}{took}"
