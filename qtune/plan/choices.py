"""The ways a recipe could run on a machine, and the one to take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from qtune.plan.memory import Costs
    from qtune.plan.plan import MemoryItem
    from qtune.recipe.sections import ActivationPolicy

# Above so many tokens a pass, a larger micro-batch gains nothing worth its memory.
ENOUGH_TOKENS = {"cuda": 16_384, "cpu": 4_096}
# Tokens at which unfolding the quantised weights costs as much time as multiplying with them.
UNFOLDING_TOKENS = {"cuda": 340, "cpu": 64}
# Work of a step in forward passes over the frozen base: its own, the gradient's, the recomputation.
PASSES: dict[ActivationPolicy, float] = {"none": 2, "selective": 2.15, "layer": 3, "offload": 3.05}


@dataclass(frozen=True)
class Choice:
    """One way to run: rows a pass, what is kept of it, and what it takes on the device."""

    micro_batch_size: int
    policy: ActivationPolicy
    items: tuple[MemoryItem, ...]
    device_bytes: int
    """With all optimizer states on the device."""
    least_bytes: int
    """With the pageable states moved to host memory."""


def choices_of(costs: Costs) -> Iterator[Choice]:
    """Every micro-batch size and policy the recipe leaves open, smaller sizes first."""
    wish = costs.recipe.memory.activations
    policies = [each for each in PASSES if each != "offload"]
    for size in micro_batch_sizes(costs):
        for policy in policies if wish == "auto" else [wish]:
            items = tuple(costs.items(size, policy))
            total = sum(item.bytes for item in items if item.where == "device")
            yield Choice(size, policy, items, total, total - costs.pageable)


def micro_batch_sizes(costs: Costs) -> list[int]:
    """The recipe's own, or the divisors of the batch that a pass can use, ascending."""
    wish, batch = costs.recipe.memory.micro_batch_size, costs.recipe.train.batch_size
    if wish != "auto":
        return [min(wish, batch)]
    most = max(1, ENOUGH_TOKENS[costs.machine.device] // costs.row_tokens)
    return [size for size in range(1, min(batch, most) + 1) if batch % size == 0]


def choose(choices: Sequence[Choice], costs: Costs, budget: int) -> Choice:
    """The fastest that fits, without paging if one does; the smallest if none does."""
    for fitting in (
        [choice for choice in choices if choice.device_bytes <= budget],
        [choice for choice in choices if choice.least_bytes <= budget],
    ):
        if fitting:
            return min(fitting, key=lambda choice: (_time(choice, costs), -choice.micro_batch_size))
    return min(choices, key=lambda choice: choice.least_bytes)


def _time(choice: Choice, costs: Costs) -> float:
    """Time of a token in forward passes, each with its unfolding."""
    tokens = choice.micro_batch_size * costs.row_tokens
    return PASSES[choice.policy] * (1 + UNFOLDING_TOKENS[costs.machine.device] / tokens)
