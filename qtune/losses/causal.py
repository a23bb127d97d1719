"""Next-token cross-entropy on the supervised positions only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from qtune.losses.head import criterion_of, hidden_states, output_layer
from qtune.ops.cross_entropy import fused_cross_entropy, row_cross_entropy

if TYPE_CHECKING:
    from torch import Tensor


class TokenBatch(Protocol):
    """What a loss reads of a batch of shape [B, T]."""

    @property
    def labels(self) -> Tensor:
        """The tokens to learn [B, T]; -100 elsewhere."""
        ...

    @property
    def learnt(self) -> Tensor:
        """Where they are learnt [S]: places in the flattened [B, T] whose next label counts."""
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

    def __init__(
        self, *, chunk_size: int, label_smoothing: float = 0.0, z_loss: float = 0.0
    ) -> None:
        self.chunk_size = chunk_size
        self.label_smoothing = label_smoothing
        self.z_loss = z_loss

    def __call__(self, model: Any, batch: TokenBatch, *, divisor: float = 1.0) -> LossOutput:
        """Forward pass and loss of one micro-batch; gradients flow when they are enabled.

        `divisor`: by what the caller divides the sum, for gradients that are rounded only once.
        """
        hidden_SH, target_S = supervised(model, batch)
        total = fused_cross_entropy(
            hidden_SH,
            target_S,
            output_layer(model),
            criterion_of(model, label_smoothing=self.label_smoothing, z_loss=self.z_loss),
            chunk_size=self.chunk_size,
            divisor=divisor,
        )
        return LossOutput(sum=total, count=target_S.numel())

    def per_row(self, model: Any, batch: TokenBatch) -> tuple[Tensor, Tensor]:
        """Summed loss (fp32) and supervised tokens of each row [B]; the plain loss, whatever is
        trained with."""
        hidden_SH, target_S = supervised(model, batch)
        losses_S = row_cross_entropy(
            hidden_SH,
            target_S,
            output_layer(model),
            criterion_of(model),
            chunk_size=self.chunk_size,
        )
        rows, length = batch.labels.shape
        rows_S = batch.learnt // length
        sums_B = losses_S.new_zeros(rows).index_add(0, rows_S, losses_S)
        return sums_B, rows_S.bincount(minlength=rows)


def supervised(model: Any, batch: TokenBatch) -> tuple[Tensor, Tensor]:
    """Hidden states [S, H] of the positions that predict a label, and the labels [S]."""
    hidden_BTH = hidden_states(model, **batch.inputs())
    # position t predicts token t+1; the places come with the batch, for asking the device
    # how many there are would make the host wait for it
    chosen_S = batch.learnt
    hidden_SH = hidden_BTH.flatten(0, 1).index_select(0, chosen_S)
    return hidden_SH, batch.labels.flatten().index_select(0, chosen_S + 1)
