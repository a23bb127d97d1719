"""Bytes that a run needs on disk: what it leaves, and what of its base lies there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtune.plan.plan import MemoryItem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qtune.plan.choices import Choice
    from qtune.plan.memory import Costs

_CHECKPOINT_BYTES = 2  # a base is published in 16 bits


def disk_of(costs: Costs, chosen: Choice) -> Iterator[MemoryItem]:
    """The base, its 4-bit copy where layers come from it, checkpoints and adapter."""
    shape = costs.shape
    if shape.stored is None:
        size = _CHECKPOINT_BYTES * shape.total_parameters
        yield MemoryItem("base", size, "disk", "in 16 bits, where it is kept")
    if chosen.way.base == "stream" and shape.stored is None:
        rest = next(item.bytes for item in costs.fixed if item.part == "the rest of the base")
        copy = rest + sum(item.bytes for item in costs.quantized)
        yield MemoryItem("4-bit copy", copy, "disk", "made once, in the user's cache")
    adapter = sum(tensor.size for tensor in costs.tensors)
    each = adapter + costs.states.total(costs.tensors)
    kept = costs.recipe.checkpoint.keep
    # the new one is whole before an old one goes
    reason = f"the newest {kept}, the best, and one being written"
    yield MemoryItem("checkpoints", (kept + 2) * each, "disk", reason)
    yield MemoryItem("adapter", adapter, "disk", "the result")
