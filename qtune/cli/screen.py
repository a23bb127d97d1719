"""Which display a command gets: the live panel, lines, or none."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from qtune.cli.output import news
from qtune.ranks import seat
from qtune.run.display import Quiet

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qtune.run.display import Display


@contextmanager
def showing(title: str, *, quiet: bool) -> Iterator[Display]:
    """A display for the time of the block: the panel on a terminal, lines elsewhere; of the
    processes of a run the first one has it."""
    display = Quiet() if quiet or seat().rank else _on_stderr(title)
    try:
        yield display
    finally:
        display.close()


def _on_stderr(title: str) -> Display:
    console = news()
    if console.is_terminal and not console.is_dumb_terminal:
        from qtune.cli.panel import PanelDisplay

        return PanelDisplay(console, title=title)
    from qtune.cli.plain import PlainDisplay

    return PlainDisplay(console)
