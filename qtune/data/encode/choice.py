"""Which turns of an example are learnt, as loss.train_on says."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qtune.data.row import Example


def learnt_turns(example: Example, train_on: str) -> Example:
    """The example with the turns marked that are learnt; `all` is for the encoder to widen."""
    if train_on == "last_assistant":
        last = max((n for n, turn in enumerate(example.turns) if turn.train), default=-1)
        turns = [turn._replace(train=number == last) for number, turn in enumerate(example.turns)]
        return replace(example, turns=tuple(turns))
    if train_on == "field":
        turns = [turn._replace(train=turn.train and turn.asked) for turn in example.turns]
        return replace(example, turns=tuple(turns))
    return example
