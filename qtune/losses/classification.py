"""Cross-entropy of a classifier's labels, one a row. B rows, C labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from qtune.losses.causal import LossOutput

if TYPE_CHECKING:
    from torch import Tensor

    from qtune.losses.causal import TokenBatch


class ClassificationLoss:
    """Sum of -log p(label) over the rows; `labels` of a batch are [B]."""

    def __init__(self, *, label_smoothing: float = 0.0, z_loss: float = 0.0) -> None:
        self.label_smoothing = label_smoothing
        self.z_loss = z_loss

    def __call__(self, model: Any, batch: TokenBatch, *, divisor: float = 1.0) -> LossOutput:
        """Forward pass and loss of one micro-batch; `divisor` makes no difference in fp32."""
        del divisor
        logits_BC = scores(model, batch)
        total = functional.cross_entropy(
            logits_BC, batch.labels, reduction="sum", label_smoothing=self.label_smoothing
        )
        if self.z_loss:
            total = total + self.z_loss * torch.logsumexp(logits_BC, dim=-1).square().sum()
        return LossOutput(sum=total, count=len(logits_BC))


def scores(model: Any, batch: TokenBatch) -> Tensor:
    """The model's own fp32 logits [B, C]."""
    logits_BC: Tensor = model(**batch.inputs()).logits
    return logits_BC.float()
