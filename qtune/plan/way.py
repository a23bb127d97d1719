"""One way to run a recipe: every value that the plan may choose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qtune.plan.plan import Strategy
    from qtune.recipe.steps import ActivationPolicy, Base


@dataclass(frozen=True)
class Way:
    """Rows a pass, what is kept of it, and what of the base is where."""

    micro_batch_size: int
    activations: ActivationPolicy = "layer"
    base: Base = "resident"
    dequantized_layers: int = 0
    loss_chunk_size: int = 1024
    strategy: Strategy = "none"
    offload: bool = False
    """A device's share of the layers waits in host memory."""
