"""Which display a command gets."""

from __future__ import annotations

import pytest
from rich.console import Console

from qtune.cli import screen
from qtune.cli.panel import PanelDisplay
from qtune.cli.plain import PlainDisplay


@pytest.mark.parametrize(("term", "display"), [("xterm", PanelDisplay), ("dumb", PlainDisplay)])
def test_a_terminal_that_cannot_move_its_cursor_gets_lines(
    term: str, display: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    console = Console(force_terminal=True, _environ={"TERM": term})
    monkeypatch.setattr(screen, "news", lambda: console)
    with screen.showing("qtune train", quiet=False) as shown:
        assert isinstance(shown, display)
