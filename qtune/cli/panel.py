"""The live panel of long work, on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from qtune.cli.chart import chart
from qtune.run.display import evaluation_line

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import RenderableType

    from qtune.run.seen import EvaluationNews, StepNews

CHART_HEIGHT = 6
MOST_ALERTS = 3
_MACHINE = (
    ("gpu_share", "gpu {:.0%}", 1),
    ("gpu_bytes", "{:.1f} GB", 1e9),
    ("gpu_watts", "{:.0f} W", 1),
    ("gpu_celsius", "{:.0f} °C", 1),
    ("cpu_share", "cpu {:.0%}", 1),
    ("host_bytes", "host {:.2f} GB", 1e9),
    ("host_free_bytes", "{:.1f} GB free", 1e9),
    ("wait_share", "waiting for rows {:.0%}", 1),
)


class PanelDisplay:
    """Loss curve, learning rate, tokens/s, memory and the time left, redrawn in place."""

    def __init__(self, console: Console, *, title: str) -> None:
        self._console = console
        self._title = title
        self._losses: list[float] = []
        self._last: StepNews | None = None
        self._work: tuple[str, int, int] | None = None
        self._evaluations: list[EvaluationNews] = []
        self._machine: dict[str, float] = {}
        self._alerts: list[str] = []
        self._seconds = 0.0
        self._live = Live(console=console, get_renderable=self._draw, refresh_per_second=4)
        self._live.start()

    def line(self, text: str) -> None:
        """A fact, above the panel."""
        self._console.print(text, markup=False)

    def progress(self, what: str, done: int, total: int) -> None:
        """Long work, as a bar."""
        self._work = (what, done, total) if done < total else None

    def step(self, event: StepNews) -> None:
        """A step moves the curve."""
        self._work = None
        self._losses.append(event.loss)
        self._last = event
        self._seconds += event.seconds

    def evaluation(self, event: EvaluationNews) -> None:
        """An evaluation becomes a line above the panel and stays in it."""
        self._work = None
        self._evaluations.append(event)
        self._console.print(Text(evaluation_line(event), style="cyan"))

    def hardware(self, found: Mapping[str, float]) -> None:
        """What the machine did stands below the numbers."""
        self._machine = self._machine | dict(found)

    def alert(self, text: str) -> None:
        """A warning stays in the panel, and above it."""
        self._alerts.append(text)
        self._console.print(Text(f"warning: {text}", style="yellow"))

    def close(self) -> None:
        """Leave the last picture on the screen."""
        self._work = None
        self._live.stop()

    def _draw(self) -> RenderableType:
        parts: list[RenderableType] = []
        if self._last is not None:
            parts += [self._curve(self._last), self._numbers(self._last)]
            if self._machine:
                parts.append(Text(machine_line(self._machine), style="dim"))
        parts += [Text(f"! {text}", style="yellow") for text in self._alerts[-MOST_ALERTS:]]
        if self._work is not None:
            parts.append(_bar(*self._work))
        if not parts:
            return Text("")
        return Panel(Group(*parts), title=self._title, border_style="dim")

    def _memory(self) -> str:
        """The peak so far, as the run that is shown knows it."""
        peak = self._machine.get("peak_bytes")
        return "-" if peak is None else f"{peak / 1e9:.2f} GB"

    def _curve(self, event: StepNews) -> RenderableType:
        width = max(20, self._console.width - 16)
        logged = len(self._losses)
        total = max(logged, round(event.total * logged / event.step))
        lines = chart(self._losses, total=total, width=width, height=CHART_HEIGHT)
        labels = [""] * CHART_HEIGHT
        labels[0] = f"{max(self._losses):.3f}"
        labels[-1] = f"{min(self._losses):.3f}"
        grid = Table.grid(padding=(0, 1))
        for label, text in zip(labels, lines, strict=True):
            grid.add_row(Text(f"{label:>8}", style="dim"), Text(text, style="green"))
        return grid

    def _numbers(self, event: StepNews) -> RenderableType:
        left = (event.total - event.step) * self._seconds / max(1, event.step)
        grid = Table.grid(expand=True)
        for _ in range(4):
            grid.add_column(ratio=1)
        grid.add_row(
            f"step {event.step}/{event.total}",
            f"loss {event.loss:.4f}",
            f"lr {event.learning_rate:.2e}",
            f"{event.tokens_per_second:,.0f} tokens/s{_share(event)}",
        )
        grid.add_row(
            f"epoch {event.epoch:.2f}",
            f"norm {event.grad_norm:.3g}",
            f"memory {self._memory()}",
            f"left {duration(left)}",
        )
        bar = Table.grid(expand=True)
        bar.add_row(ProgressBar(total=event.total, completed=event.step))
        return Group(bar, grid)


def _bar(what: str, done: int, total: int) -> RenderableType:
    grid = Table.grid(padding=(0, 1), expand=True)
    grid.add_column(no_wrap=True)
    grid.add_column(ratio=1)
    grid.add_column(no_wrap=True)
    grid.add_row(what, ProgressBar(total=total, completed=done), f"{done:,}/{total:,}")
    return grid


def _share(event: StepNews) -> str:
    return "" if event.limit_share is None else f" ({event.limit_share:.0%})"


def machine_line(found: Mapping[str, float]) -> str:
    """What the machine did, as far as it is known, on one line."""
    parts = [
        template.format(found[name] / scale)
        for name, template, scale in _MACHINE
        if found.get(name) is not None
    ]
    return "  ".join(parts)


def duration(seconds: float) -> str:
    """Seconds as 1h02m, 3m07s or 12s."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 60}m{whole % 60:02d}s" if whole >= 60 else f"{whole}s"
