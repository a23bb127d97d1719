"""Bytes of the optimizer's states, tensor by tensor.

bitsandbytes: `moments` fp32 numbers an element, or one byte each + one fp32 for 256 elements, and
fp32 again for tensors below 4,096 elements; AdEMAMix keeps three moments (two in its first state).
Paging holds only states of at least 100,000 elements in unified memory. PyTorch's own optimizers
keep their states in the dtype of the parameter.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from qtune.plan.adapters import TrainableTensor

MIN_8BIT_ELEMENTS = 4096
MIN_PAGED_ELEMENTS = 100_000
_STATE_BLOCK = 256


@dataclass(frozen=True)
class OptimizerStates:
    """What one optimizer keeps for each trained number."""

    name: str
    moments: int
    held: Literal["8-bit", "32-bit", "as the parameter"]
    paged: bool = False

    def size(self, tensor: TrainableTensor) -> int:
        """Bytes of the states of one trained tensor."""
        if self.held == "as the parameter":
            return self.moments * tensor.size
        if self.held == "32-bit" or tensor.elements < MIN_8BIT_ELEMENTS:
            return self.moments * 4 * tensor.elements
        return self.moments * (tensor.elements + 4 * ceil(tensor.elements / _STATE_BLOCK))

    def pageable(self, tensors: Iterable[TrainableTensor]) -> int:
        """Bytes of the states that the driver may move to host memory."""
        if not self.paged:
            return 0
        return sum(self.size(tensor) for tensor in tensors if tensor.elements >= MIN_PAGED_ELEMENTS)

    def total(self, tensors: Iterable[TrainableTensor]) -> int:
        """Bytes of all states."""
        return sum(self.size(tensor) for tensor in tensors)


OPTIMIZERS: dict[str, OptimizerStates] = {
    "paged_adamw_32bit": OptimizerStates("adamw_32bit", 2, "32-bit", paged=True),
    "paged_adamw_8bit": OptimizerStates("adamw_8bit", 2, "8-bit", paged=True),
    "adamw_8bit": OptimizerStates("adamw_8bit", 2, "8-bit"),
    "paged_lion_8bit": OptimizerStates("lion_8bit", 1, "8-bit", paged=True),
    "lion_8bit": OptimizerStates("lion_8bit", 1, "8-bit"),
    "ademamix_8bit": OptimizerStates("ademamix_8bit", 3, "8-bit"),
    "adamw": OptimizerStates("adamw", 2, "as the parameter"),
    "sgd": OptimizerStates("sgd", 1, "as the parameter"),
}


def states_of(name: str, *, device: Literal["cpu", "cuda"]) -> OptimizerStates:
    """What the named optimizer keeps on this device; without CUDA nothing is paged."""
    states = OPTIMIZERS[name]
    if states.paged and device == "cpu":
        return OptimizerStates(states.name, states.moments, states.held)
    return states
