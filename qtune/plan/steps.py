"""How many optimizer steps a recipe makes of its rows."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import TYPE_CHECKING

from qtune.errors import DataError

if TYPE_CHECKING:
    from qtune.recipe.sections import Recipe


@dataclass(frozen=True)
class Steps:
    """Optimizer steps, and a bound on the tokens they read."""

    total: int
    per_epoch: int
    warmup: int
    tokens_upper: int
    """Every row at its longest, data.max_length or an image's tokens."""


def schedule(recipe: Recipe, rows: int, *, image_tokens: int = 0) -> Steps:
    """Steps over `rows` training rows, images of so many tokens each or texts; the last step of an
    epoch may be smaller."""
    if rows < 1:
        raise DataError("there are no training rows", place="data.train")
    train, optim = recipe.train, recipe.optim
    per_epoch = ceil(rows / train.batch_size)
    total = train.max_steps or max(1, ceil(per_epoch * _exact(train.num_train_epochs)))
    warmup = optim.warmup_steps
    if warmup is None:
        warmup = ceil(total * _exact(optim.warmup_ratio))
    epochs, rest = divmod(total, per_epoch)
    rows_read = epochs * rows + min(rows, rest * train.batch_size)
    return Steps(
        total=total,
        per_epoch=per_epoch,
        warmup=warmup,
        tokens_upper=rows_read * (image_tokens or recipe.data.max_length),
    )


def _exact(value: float) -> Fraction:
    """The number as it was written: 10 steps of 1.1 epochs are 11, not ceil(11.000000000000002)."""
    return Fraction(repr(value))
