"""Next-token cross-entropy on the supervised positions only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from qtune.losses.head import Head, hidden_states
from qtune.ops.cross_entropy import chunked_cross_entropy, row_cross_entropy

if TYPE_CHECKING:
    from torch import Tensor

IGNORED = -100


class TokenBatch(Protocol):
    """What a loss reads of a batch, all [B, T]."""

    @property
    def labels(self) -> Tensor:
        """The tokens to learn; -100 elsewhere."""
        ...

    def inputs(self) -> dict[str, Tensor]:
        """What the model is called with."""
        ...


@dataclass(frozen=True)
class LossOutput:
    """A loss summed over `count` supervised tokens; `sum` is an fp32 scalar in nats."""

    sum: Tensor
    count: int


class CausalLoss:
    """Sum of -log p(next token) over the labels that are not -100.

    Only supervised positions reach the head, so neither the prompt nor the padding costs logits.
    """

    def __init__(self, *, chunk_size: int, label_smoothing: float = 0.0) -> None:
        self.chunk_size = chunk_size
        self.label_smoothing = label_smoothing

    def __call__(self, model: Any, batch: TokenBatch) -> LossOutput:
        """Forward pass and loss of one micro-batch; gradients flow when they are enabled."""
        hidden_SH, target_S = self._supervised(model, batch)
        total = chunked_cross_entropy(
            hidden_SH,
            target_S,
            Head(model),
            chunk_size=self.chunk_size,
            label_smoothing=self.label_smoothing,
        )
        return LossOutput(sum=total, count=target_S.numel())

    def per_row(self, model: Any, batch: TokenBatch) -> tuple[Tensor, Tensor]:
        """Summed loss (fp32) and supervised tokens of each row [B]; no label smoothing."""
        hidden_SH, target_S = self._supervised(model, batch)
        losses_S = row_cross_entropy(hidden_SH, target_S, Head(model), chunk_size=self.chunk_size)
        rows_S = (batch.labels[:, 1:] != IGNORED).nonzero()[:, 0]
        rows = batch.labels.shape[0]
        sums_B = losses_S.new_zeros(rows).index_add(0, rows_S, losses_S)
        return sums_B, rows_S.bincount(minlength=rows)

    @staticmethod
    def _supervised(model: Any, batch: TokenBatch) -> tuple[Tensor, Tensor]:
        hidden_BTH = hidden_states(model, **batch.inputs())
        # position t predicts token t+1
        target_BT = batch.labels[:, 1:]
        chosen_BT = target_BT != IGNORED
        return hidden_BTH[:, :-1][chosen_BT], target_BT[chosen_BT]
