"""Which display a command gets."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from qtune.cli import screen
from qtune.cli.panel import PanelDisplay
from qtune.cli.plain import PlainDisplay
from qtune.training import StepEvent


@pytest.mark.parametrize(("term", "display"), [("xterm", PanelDisplay), ("dumb", PlainDisplay)])
def test_a_terminal_that_cannot_move_its_cursor_gets_lines(
    term: str, display: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    console = Console(force_terminal=True, _environ={"TERM": term})
    monkeypatch.setattr(screen, "news", lambda: console)
    with screen.showing("qtune train", quiet=False) as shown:
        assert isinstance(shown, display)


@pytest.mark.parametrize(("share", "text"), [(None, "500 tokens/s"), (0.62, "500 tokens/s (62%)")])
def test_the_panel_tells_the_share_of_the_limit(share: float | None, text: str) -> None:
    console = Console(width=100, file=StringIO(), force_terminal=True, no_color=True)
    panel = PanelDisplay(console, title="qtune train")
    try:
        panel.step(
            StepEvent(
                step=1,
                total=2,
                epoch=0.5,
                loss=1.0,
                grad_norm=0.1,
                learning_rate=1e-3,
                tokens=500,
                supervised=50,
                computed=600,
                seconds=1.0,
                limit_share=share,
            )
        )
        console.print(panel._draw())
    finally:
        panel.close()
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert text in shown
    assert ("%)" in shown) == (share is not None)
