"""What every loss with a teacher's probabilities is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from qtune.losses.head import criterion_of

if TYPE_CHECKING:
    from qtune.ops.logits import Criterion


@dataclass(frozen=True, kw_only=True)
class Soft:
    """How much a teacher's probabilities weigh beside the labels, and how both are read."""

    chunk_size: int
    """Positions whose logits are held at a time."""
    temperature: float = 2.0
    soft_share: float = 0.5
    divergence: Literal["forward", "reverse"] = "forward"
    label_smoothing: float = 0.0
    z_loss: float = 0.0

    def hard(self, model: Any) -> Criterion:
        """The plain loss beside it."""
        return criterion_of(model, label_smoothing=self.label_smoothing, z_loss=self.z_loss)
