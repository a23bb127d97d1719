"""Memory by part: what the plan says of each, and what of it can be measured in a process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtune import models, optim
from qtune.plan.plan import FROZEN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch.optim import Optimizer

    from qtune.plan import MemoryItem, Plan
    from qtune.run.prepare import Learner

Part = dict[str, str | int | None]

# Of the plan's parts, those that exist only while a batch goes through, and what is no tensor.
_PASSING = (
    *("activations", "gradients in flight", "layer inputs", "layer inputs on their way"),
    *("matrix products", "work of one layer", "logits", "dequantised weight"),
    *("gathered layers", "parts on their way", "gradients on their way"),
)
_PROCESS = ("interpreter and libraries", "CUDA context")
_NAMED = ("gradients", "optimizer states", "allocator slack", *_PROCESS, *_PASSING)
_KEPT = ("the base", "trained parameters", "optimizer states")
_REST = "passes and the process"


def predicted_parts(decided: Plan) -> dict[str, int]:
    """The plan's table, as far as its parts can be told apart from outside; the process and the
    allocator's slack cannot."""
    there = [item for item in decided.memory if item.where == "device"]
    trained = decided.adapter_bytes - _sum(there, FROZEN)
    base = sum(item.bytes for item in there if item.part not in _NAMED) - trained
    return {
        "the base": base,
        "trained parameters": trained,
        "gradients": _sum(there, "gradients"),
        "optimizer states": _sum(there, "optimizer states"),
        "the longest batch": _sum(there, *_PASSING),
        "the process": _sum(there, *_PROCESS),
        "allocator slack": _sum(there, "allocator slack"),
    }


def kept_bytes(pupil: Learner, optimizer: Optimizer) -> dict[str, int]:
    """What stays from step to step, by part."""
    adapter = sum(parameter.nbytes for parameter in pupil.method.parameters().values())
    base = models.inventory(pupil.base.model).bytes - adapter
    sizes: tuple[Any, ...] = (base, adapter, optim.state_bytes(optimizer))
    return dict(zip(_KEPT, sizes, strict=True))


def compared_parts(decided: Plan, kept: dict[str, int], peak: int) -> list[Part]:
    """The parts of a run that has trained, as planned and as measured: what stays, and of the peak
    all the rest, which comes and goes with the passes."""
    planned = predicted_parts(decided)
    pairs = [(part, planned[part], kept[part]) for part in _KEPT]
    predicted = decided.device_bytes - sum(planned[part] for part in _KEPT)
    pairs.append((_REST, predicted, max(0, peak - sum(kept.values()))))
    return [
        {"part": part, "predicted_bytes": expected, "measured_bytes": measured}
        for part, expected, measured in pairs
    ]


def _sum(items: Sequence[MemoryItem], *parts: str) -> int:
    return sum(item.bytes for item in items if item.part in parts)
