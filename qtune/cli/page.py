"""Self-contained pages: the rows in colour."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from qtune.cli.colours import heading
from qtune.data.pieces import visible
from qtune.run.pages import style

if TYPE_CHECKING:
    from qtune.data.pieces import Piece
    from qtune.run.data import Preview

LEARNT_COLOUR, GIVEN_COLOUR = "#0b7a53", "#b9c1cb"
STYLE = """
.row { white-space: pre-wrap; overflow-wrap: anywhere; font: 13.5px/1.65 ui-monospace,
  "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; margin: 8px 0 0; }
.g { color: var(--quiet); }
.l { color: var(--good); background: var(--good-back); font-weight: 600; }
.s { border: 1px solid currentColor; border-radius: 4px; padding: 0 3px; font-size: 12px; }
.card h2 { margin: 0 0 8px; }
.track { width: 60%; }
.bar { background: var(--c1); border-radius: 4px; height: 14px; margin: 4px 0; }
@media (prefers-color-scheme: dark) { svg { filter: invert(.88) hue-rotate(180deg); } }
"""


def page(title: str, body: str) -> str:
    """A whole HTML page that needs no other file, in the style of a run's."""
    return style.page(title, body, more=STYLE)


def preview_page(shown: Preview) -> str:
    """The rows, whole; the ids of a token appear under the mouse."""
    cards = [
        f'<div class="card"><b>{escape(heading(row))}</b>'
        f'<div class="row">{"".join(map(_span, row.pieces))}</div></div>'
        for row in shown.rows
    ]
    head = (
        f"<h1>{escape(shown.name)}</h1>"
        f'<p class="quiet">{len(shown.rows):,} of {shown.total:,} training rows: '
        '<span class="l">learnt</span> <span class="g">given</span> '
        '<span class="g s">special</span>; point at a token for its ids</p>'
    )
    return page(f"{shown.name}: rows", "\n".join([head, *cards]))


def _span(piece: Piece) -> str:
    kind = ("l" if piece.learnt else "g") + (" s" if piece.special else "")
    ids = " ".join(map(str, piece.ids))
    return f'<span class="{kind}" title="{ids}">{escape(visible(piece.text))}</span>'
