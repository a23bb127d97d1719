"""A teacher's most likely tokens, read from what it wrote of each row, beside the labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from qtune.losses.causal import LossOutput, TokenBatch, supervised
from qtune.losses.head import output_layer
from qtune.losses.soft import Soft
from qtune.ops.cross_entropy import through_head
from qtune.ops.top_distillation import TopDistillation

if TYPE_CHECKING:
    from torch import Tensor


class TaughtBatch(TokenBatch, Protocol):
    """A batch with what a teacher wrote of its supervised places."""

    @property
    def taught(self) -> tuple[Tensor, Tensor] | None:
        """Ids [S, K] and log-probabilities [S, K + 1]."""
        ...


@dataclass(frozen=True, kw_only=True)
class LessonsLoss(Soft):
    """Sum over supervised tokens of (1 - soft_share) times the plain loss and soft_share T^2 KL,
    over the tokens that were written down and, as one, all others (`TopDistillation`)."""

    width: int
    """How many ids the teacher spoke of."""

    def __call__(self, model: Any, batch: TaughtBatch, *, divisor: float = 1.0) -> LossOutput:
        """The student's pass; `divisor` is what the sum is divided by."""
        assert batch.taught is not None
        hidden_SH, target_S = supervised(model, batch)
        criterion = TopDistillation(
            hard=self.hard(model),
            width=self.width,
            temperature=self.temperature,
            share=self.soft_share,
            divergence=self.divergence,
        )
        total = through_head(
            hidden_SH,
            (target_S, *batch.taught),
            output_layer(model),
            criterion.losses_and_gradient,
            chunk_size=self.chunk_size,
            divisor=divisor,
        )
        return LossOutput(sum=total, count=target_S.numel())
