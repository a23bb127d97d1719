"""What edits did to the weights: that they changed something, how much, and what rounding cost."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from qtune.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


@dataclass(frozen=True)
class Effect:
    """What an edit did to a block, as in `Account`; without norms if it is not in the sample."""

    name: str
    changed: bool
    change: float = 0.0
    rounding: float = 0.0


@dataclass
class Account:
    """What edits did: squared norms of the change and of what rounding cost, over a sample."""

    change: float = 0.0
    rounding: float = 0.0
    without_effect: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, effects: Sequence[Effect]) -> Account:
        """Of whole tensors, by the effects on their blocks."""
        changed = {effect.name for effect in effects if effect.changed}
        return cls(
            sum(effect.change for effect in effects),
            sum(effect.rounding for effect in effects),
            sorted({effect.name for effect in effects} - changed),
        )

    def add(self, other: Account) -> None:
        """Take another's figures to one's own."""
        self.change += other.change
        self.rounding += other.rounding
        self.without_effect += other.without_effect

    @property
    def lost(self) -> float:
        """Norm of what rounding to the output dtype cost, over the norm of the change."""
        return math.sqrt(self.rounding / self.change) if self.change else 0.0


def measured(name: str, base: Tensor, edited: Tensor, result: Tensor) -> Effect:
    """The effect of an edit on a block: fp32 before and after, and what is written."""
    difference = (edited - base).reshape(-1)
    change = _squared(difference)
    changed = change > 0.0 or bool(difference.any())
    rounding = 0.0
    if result.dtype != edited.dtype:
        torch.sub(result, edited, out=difference.view_as(edited))
        rounding = _squared(difference)
    return Effect(name, changed, change, rounding)


def check_shape(name: str, base: Tensor, edited: Tensor) -> None:
    """`ModelError` if an edit makes no block of the output."""
    if edited.shape != base.shape:
        raise ModelError(
            f"the adapter makes {name} {list(edited.shape)}, the base has {list(base.shape)}",
            hint="it belongs to another base",
        )


def check_finite(name: str, edited: Tensor, result: Tensor) -> None:
    """`ModelError` for a NaN or an infinity, in fp32 or made by the output dtype."""
    flat = edited.reshape(-1)
    if not math.isfinite(_squared(flat)) and not bool(flat.isfinite().all()):
        raise ModelError(f"the adapter makes {name} NaN or infinite", hint="nothing was written")
    if result.dtype == torch.float16 and not bool(result.isfinite().all()):
        raise ModelError(
            f"{name} is too large for float16",
            place="merge.dtype",
            hint="merge with --dtype bfloat16 or float32; nothing was written",
        )


def refuse_idle(account: Account, edits: int) -> None:
    """Raise `ModelError` if an edit changed nothing: an adapter that was not trained."""
    names = account.without_effect
    if names:
        raise ModelError(
            f"{len(names)} of {edits} edits change nothing: {', '.join(names[:3])}",
            hint="the adapter is untrained or belongs elsewhere; nothing was written",
        )


def _squared(values: Tensor) -> float:
    """Sum of squares, in fp64 over pieces that are summed in fp32."""
    total: Any = 0.0
    for piece in values.split(2**18):
        total += float(torch.dot(piece, piece))
    return float(total)
