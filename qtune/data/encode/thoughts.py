"""Reasoning that a row writes into an answer's own text, `<think>...</think>`, set apart."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qtune.data.row import Example, Turn

END = "</think>"
# As templates read it: the opening may be missing, for there are prompts that write it.
_WRITTEN = re.compile(rf"\s*(?:<think>)?((?:(?!</?think>).)*){END}((?:(?!</?think>).)*)", re.DOTALL)


def set_apart(example: Example) -> Example | None:
    """The example with such reasoning beside the answers; None if it has none.

    An empty `<think></think>` is no reasoning: it is learnt as it stands, or refused.
    """
    turns = tuple(map(_apart, example.turns))
    return None if turns == example.turns else replace(example, turns=turns)


def _apart(turn: Turn) -> Turn:
    answers = turn.role == "assistant" and not turn.thinking
    found = _WRITTEN.fullmatch(turn.text) if answers else None
    if found is None or not found[1].strip():
        return turn
    return turn._replace(text=found[2].lstrip("\n"), thinking=found[1].strip("\n"))
