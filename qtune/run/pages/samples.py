"""Held-out prompts with the answers of the untouched model and of the tuned one."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from qtune.run.pages.fragments import card, folded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qtune.run.pages.told import Record, Told

OPEN = 4
"""Rows that are seen at once; the others open on a click."""


def sample_cards(told: Told) -> Iterator[str]:
    """A card a row: prompt, reference, and what was answered at the start and by the result."""
    if not told.samples:
        return
    steps = sorted(told.samples)
    result = told.result_step if told.result_step in told.samples else steps[-1]
    first = steps[0] if steps[0] != result else None
    before = {one.get("place"): one for one in told.samples[first]} if first is not None else {}
    assert result is not None
    cards = [
        card(_sample(one, before.get(one.get("place")), first, result))
        for one in told.samples[result]
    ]
    yield from cards[:OPEN]
    yield folded(f"{len(cards) - OPEN} more", "".join(cards[OPEN:])) if cards[OPEN:] else ""


def _sample(answer: Record, before: Record | None, first: int | None, result: int) -> str:
    reference = answer.get("reference")
    columns = [_column("reference", reference, reference, mark=False)]
    if before is not None:
        columns.append(_column(_side(first), before.get("text"), reference))
    columns.append(_column(f"after step {result}", answer.get("text"), reference))
    return (
        f'<div class="text">{escape(_text(answer.get("prompt")))}</div>'
        f'<div class="sample">{"".join(columns)}</div>'
    )


def _side(step: int | None) -> str:
    return "before training" if step == 0 else f"after step {step}"


def _column(title: str, text: Any, reference: Any, *, mark: bool = True) -> str:
    is_right = mark and _text(text).strip() == _text(reference).strip()
    kind = ' class="right"' if is_right else ""
    shown = escape(_text(text)) or "<i>nothing</i>"
    return f'<div{kind}><span>{escape(title)}</span><div class="text">{shown}</div></div>'


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
