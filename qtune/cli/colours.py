"""Rows in colour: learnt tokens bold, given ones dim, special ones reversed."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from rich.text import Text

from qtune.data.pieces import visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console

    from qtune.data.pieces import Piece
    from qtune.run.data import ShownRow

LEARNT, GIVEN, SPECIAL, IDS = "bold green", "dim", "reverse", "cyan"
_OPEN, _CLOSE = "⟦", "⟧"
_STRETCH, _KEPT = 160, 60
_SUBSCRIPT = str.maketrans("0123456789+", "₀₁₂₃₄₅₆₇₈₉₊")


def coloured(console: Console) -> bool:
    """Whether colours reach the reader; without them marks stand around what is learnt."""
    return console.color_system is not None and not console.no_color


def heading(row: ShownRow) -> str:
    """Place and counts of a row."""
    share = row.learnt / row.tokens if row.tokens else 0.0
    return f"#{row.number} {row.place}: {row.tokens:,} tokens, {row.learnt:,} learnt ({share:.0%})"


def legend(*, marks: bool) -> Text:
    """What the styles mean."""
    if marks:
        return Text(f"{_OPEN}learnt{_CLOSE} given")
    key = Text("learnt", style=LEARNT)
    key.append(" given ", style=GIVEN)
    key.append("special", style=f"{GIVEN} {SPECIAL}")
    return key


def row_text(row: ShownRow, *, marks: bool, ids: bool, whole: bool) -> Text:
    """A row as text; long stretches keep their ends only unless `whole`."""
    text = Text(no_wrap=False)
    for learnt, stretch in groupby(row.pieces, key=lambda piece: piece.learnt):
        style = LEARNT if learnt else GIVEN
        text.append(_OPEN if marks and learnt else "")
        for piece in shortened(list(stretch), whole=whole):
            if isinstance(piece, int):
                text.append(f" … {piece:,} tokens … ", style="italic yellow")
                continue
            shown = visible(piece.text)
            line_ends = shown.endswith("\n")
            text.append(
                shown[:-1] if line_ends else shown,
                style=f"{style} {SPECIAL}" if piece.special else style,
            )
            if ids:
                number = "+".join(map(str, piece.ids)).translate(_SUBSCRIPT)
                text.append(number, style=IDS)
            text.append("\n" if line_ends else "")
        text.append(_CLOSE if marks and learnt else "")
    text.rstrip()
    return text


def shortened(stretch: Sequence[Piece], *, whole: bool) -> Iterator[Piece | int]:
    """The pieces, or the first and last of many with the number of tokens between them."""
    if whole or len(stretch) <= _STRETCH:
        yield from stretch
        return
    yield from stretch[:_KEPT]
    yield sum(len(piece.ids) for piece in stretch[_KEPT:-_KEPT])
    yield from stretch[-_KEPT:]
