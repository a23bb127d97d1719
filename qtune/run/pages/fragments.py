"""Pieces of a page; every text from outside is escaped here."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any

from qtune.plan import human

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@dataclass(frozen=True)
class Raw:
    """HTML that is made here already."""

    html: str


Cell = str | Raw
NONE = "-"


def said(cell: Cell) -> str:
    """A text as HTML."""
    return cell.html if isinstance(cell, Raw) else escape(cell)


def section(title: str, *bodies: str) -> str:
    """A headed part of the page; nothing where all its bodies are empty."""
    body = "".join(bodies)
    return f"<section><h2>{escape(title)}</h2>{body}</section>" if body else ""


def card(*bodies: str) -> str:
    """A framed body; nothing around nothing."""
    body = "".join(bodies)
    return f'<div class="card">{body}</div>' if body else ""


def table(
    heads: Sequence[Cell],
    rows: Iterable[Sequence[Cell]],
    *,
    kinds: Sequence[str] = (),
) -> str:
    """A table; `kinds`: a class for each column. Nothing without rows."""
    lines = [_row("td", row, kinds) for row in rows]
    head = _row("th", heads, kinds) if heads else ""
    return f"<table>{head}{''.join(lines)}</table>" if lines else ""


def _row(tag: str, cells: Sequence[Cell], kinds: Sequence[str]) -> str:
    classes = (f' class="{kind}"' if kind else "" for kind in chain(kinds, repeat("")))
    inside = "".join(
        f"<{tag}{kind}>{said(cell)}</{tag}>" for cell, kind in zip(cells, classes, strict=False)
    )
    return f"<tr>{inside}</tr>"


def tiles(pairs: Iterable[tuple[str, Cell]]) -> str:
    """Figures with their names, side by side."""
    inside = "".join(
        f'<div class="tile"><span>{escape(name)}</span><b>{said(value)}</b></div>'
        for name, value in pairs
    )
    return f'<div class="tiles">{inside}</div>' if inside else ""


def callout(lines: Iterable[str], *, bad: bool = False) -> str:
    """Something to look after."""
    inside = "".join(f"<p>{escape(line)}</p>" for line in lines)
    return f'<div class="say{" bad" if bad else ""}">{inside}</div>' if inside else ""


def folded(title: str, body: str) -> str:
    """A body that opens on a click."""
    return f"<details><summary>{escape(title)}</summary>{body}</details>" if body else ""


def bars(planned: float | None, measured: float | None) -> Raw:
    """A bar for each share of the longest; none for what is not known."""
    inside = "".join(
        f'<div{kind} style="width: {min(max(share, 0.0), 1.0):.1%}"></div>'
        for share, kind in ((planned, ""), (measured, ' class="second"'))
        if share is not None
    )
    return Raw(inside)


def number(value: Any) -> str:
    """A number for people; a dash for none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return NONE
    if isinstance(value, int):
        return f"{value:,}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}" if value == 0 or abs(value) >= 1e-4 else f"{value:.2e}"


def brief(value: Any) -> str:
    """A measure in three digits, none behind the fourth decimal."""
    if not _is_number(value):
        return NONE
    return f"{value:.3g}" if abs(value) >= 1e-3 else f"{value:.4f}".rstrip("0").rstrip(".")


def size(value: Any) -> str:
    """Bytes for people; a dash for none."""
    return human(round(value)) if _is_number(value) else NONE


def duration(seconds: Any) -> str:
    """Seconds as 1 h 02 min, 3 min 07 s or 12 s; a dash for none."""
    if not _is_number(seconds):
        return NONE
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def with_interval(value: Any, low: Any, high: Any) -> Raw:
    """A measure with the ends of its interval."""
    text = escape(number(value))
    if _is_number(low) and _is_number(high):
        text += f' <span class="ci">{escape(brief(low))} to {escape(brief(high))}</span>'
    return Raw(text)
