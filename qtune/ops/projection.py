"""A frozen linear layer with what an adapter adds to it, as tensors that an op can work on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qtune.ops.dense import compute_dtype
from qtune.ops.linears import is_linear

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from torch import Tensor, nn


@dataclass(frozen=True)
class Projection:
    """y = base(x) + scale B A dropout(x); with `gain` g (DoRA) each output of W and BA times g.

    m inputs, n outputs, r rank: down A [r, m] and up B [n, r], both or neither; gain [n].
    """

    base: nn.Module
    down: Tensor | None = None
    up: Tensor | None = None
    scale: float = 1.0
    dropout: float = 0.0
    """Share of the adapter's inputs that is zeroed, 0 outside of training."""
    gain: Tensor | None = None

    @property
    def rank(self) -> int:
        """r, or 0 without an adapter."""
        return 0 if self.down is None else self.down.shape[0]


def projection_of(layer: Any) -> Projection:
    """Of an adapted layer (`layer.projection()`), or of a frozen one that has no adapter."""
    return layer.projection() if hasattr(layer, "projection") else Projection(layer)


def why_not(layers: Sequence[Any], dtype: torch.dtype | None = None) -> str | None:
    """What keeps layers from being computed by their projections, on inputs of a dtype."""
    for layer in layers:
        base = layer
        if hasattr(layer, "projection"):
            if not _tells_all(type(layer)):
                return f"{type(layer).__name__} computes something else than its projection"
            base = layer.base
        if not is_linear(base):
            return f"{type(layer).__name__} is no linear layer with a low-rank adapter"
        if _hooked(layer) or _hooked(base):
            return f"hooks on {type(layer).__name__}"
        if any(parameter.requires_grad for parameter in base.parameters(recurse=False)):
            return f"{type(base).__name__} trains its own weights"
        if dtype is not None and compute_dtype(base) not in (None, dtype):
            return f"inputs in {dtype}"
    return None


def _tells_all(kind: type) -> bool:
    """Whether no subclass changed the computation without its projection."""
    for parent in kind.__mro__:
        if "projection" in vars(parent):
            return True
        if {"forward", "update"} & vars(parent).keys():
            return False
    return False


def _hooked(module: Any) -> bool:
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )


def adapter_tensors(projections: Sequence[Projection]) -> tuple[Tensor | None, ...]:
    """What of projections may want a gradient, three of each: autograd must see them as inputs."""
    return tuple(tensor for p in projections for tensor in (p.down, p.up, p.gain))


def input_needed(projections: Sequence[Projection]) -> bool:
    """Whether a backward pass reads the input: only an A that trains does, LoRA-FA's does not."""
    return any(p.down is not None and p.down.requires_grad for p in projections)
