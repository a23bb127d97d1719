"""A teacher's most likely tokens, read from what it wrote of each row, beside the labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Protocol

from qtune.losses.causal import LossOutput, TokenBatch, supervised
from qtune.losses.head import criterion_of, output_layer
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


class LessonsLoss:
    """Sum over supervised tokens of (1 - soft_share) times the plain loss and soft_share T^2 KL,
    over the tokens that were written down and, as one, all others (`TopDistillation`).

    `width`: how many ids the teacher spoke of.
    """

    def __init__(
        self,
        *,
        width: int,
        chunk_size: int,
        temperature: float = 2.0,
        soft_share: float = 0.5,
        divergence: Literal["forward", "reverse"] = "forward",
        label_smoothing: float = 0.0,
        z_loss: float = 0.0,
    ) -> None:
        self.width = width
        self.chunk_size = chunk_size
        self.temperature = temperature
        self.soft_share = soft_share
        self.divergence: Literal["forward", "reverse"] = divergence
        self.label_smoothing = label_smoothing
        self.z_loss = z_loss

    def __call__(self, model: Any, batch: TaughtBatch, *, divisor: float = 1.0) -> LossOutput:
        """The student's pass; `divisor` is what the sum is divided by."""
        assert batch.taught is not None
        hidden_SH, target_S = supervised(model, batch)
        criterion = TopDistillation(
            hard=criterion_of(model, label_smoothing=self.label_smoothing, z_loss=self.z_loss),
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
