"""What devices that train one model together send one another in an optimizer step.

N devices, G bytes of gradients, W bytes of the weights that are shared out. A ring sums G with
2 (N-1)/N G sent by each (Patarasuk and Yuan 2009), and gathers W with (N-1)/N W; as much is
received at the same time. Gradients travel once a step; weights once in the forward pass and once
in the backward pass of every micro-batch, and once more where the base is its own teacher.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qtune.recipe.lessons import lessons_of

if TYPE_CHECKING:
    from qtune.plan.memory import Costs
    from qtune.plan.way import Way


@dataclass(frozen=True)
class Traffic:
    """Bytes that each device sends."""

    gradients: int = 0
    """To sum all gradients, once a step."""
    weights: int = 0
    """To have all layers whole, once each."""
    visits: int = 0
    """How often a pass over a micro-batch has that."""

    def a_step(self, passes: int) -> int:
        """Bytes of a step of so many passes."""
        return self.gradients + passes * self.visits * self.weights


def summed(size: int, processes: int) -> int:
    """Bytes that each sends so that all have the sum of `size` bytes of everyone."""
    return 2 * (processes - 1) * size // processes


def gathered(size: int, processes: int) -> int:
    """Bytes that each receives so that it has all of `size` bytes that were shared out."""
    return (processes - 1) * size // processes


def traffic_of(costs: Costs, way: Way) -> Traffic:
    """The traffic of one way to run a recipe."""
    if way.strategy == "none":
        return Traffic()
    processes = costs.processes
    gradients = summed(sum(tensor.size for tensor in costs.tensors), processes)
    if way.strategy == "ddp":
        return Traffic(gradients)
    teaches = costs.recipe.loss.teacher == "base" and lessons_of(costs.recipe) is None
    return Traffic(gradients, gathered(costs.layers.packed_together, processes), 2 + teaches)
