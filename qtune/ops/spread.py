"""Tensors that lie in shards over the processes of a run: torch's DTensors, known by what they do.

Nothing here imports torch.distributed: a run on one device never needs it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import Tensor


def is_spread(tensor: Tensor) -> bool:
    """Whether a process holds only a part of it."""
    return hasattr(tensor, "full_tensor")


def whole(tensor: Tensor) -> Tensor:
    """All of a frozen tensor: itself, or, of a spread one, what all processes gather together."""
    held: Any = tensor
    if not is_spread(tensor):
        return tensor
    with torch.no_grad():
        return held.to(device_of(tensor)).full_tensor()  # type: ignore[no-any-return]


def here(tensor: Tensor) -> Tensor:
    """The part of a tensor that this process holds."""
    held: Any = tensor
    return held.to_local() if is_spread(tensor) else tensor


def device_of(tensor: Tensor) -> torch.device:
    """Where a tensor is computed with; the shards of a spread one may wait elsewhere."""
    held: Any = tensor
    if not is_spread(tensor) or held.device_mesh.device_type == "cpu":
        return tensor.device
    kind = held.device_mesh.device_type
    return torch.device(kind, torch.get_device_module(kind).current_device())
