"""Self-contained pages: the rows in colour."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from qtune.cli.colours import heading
from qtune.data.pieces import visible

if TYPE_CHECKING:
    from qtune.data.pieces import Piece
    from qtune.run.data import Preview

LEARNT_COLOUR, GIVEN_COLOUR = "#0b7a53", "#b9c1cb"
STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.55 system-ui, "Segoe UI", "Helvetica Neue", Arial, sans-serif; color: #1d2733;
  background: #f6f7f9; margin: 0 auto; padding: 32px 24px 64px; max-width: 960px; }
h1 { font-size: 24px; margin: 0 0 4px; } h2 { font-size: 17px; margin: 32px 0 10px; }
p { margin: 4px 0; } .quiet { color: #5d6b7a; }
.card { background: #fff; border: 1px solid #e3e7ec; border-radius: 10px; padding: 16px 20px;
  margin: 14px 0; }
.row { white-space: pre-wrap; overflow-wrap: anywhere; font: 13.5px/1.65 ui-monospace,
  "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; margin: 8px 0 0; }
.g { color: #7b8794; } .l { color: #075e40; background: #dcf3e8; font-weight: 600; }
.s { border: 1px solid currentColor; border-radius: 4px; padding: 0 3px; font-size: 12px; }
table { border-collapse: collapse; width: 100%; } td, th { padding: 5px 14px 5px 0;
  text-align: left; border-bottom: 1px solid #edf0f3; vertical-align: top; }
th { font-weight: 600; color: #5d6b7a; } .n { text-align: right;
  font-variant-numeric: tabular-nums; }
.card h2 { margin: 0 0 8px; }
.track { width: 60%; }
.bar { background: #4c78a8; border-radius: 4px; height: 14px; margin: 4px 0; }
tr:last-child td { border-bottom: 0; } svg { width: 100%; height: auto; }
"""


def page(title: str, body: str) -> str:
    """A whole HTML page that needs no other file."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n"
        f"<body>\n{body}\n</body></html>\n"
    )


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
