"""k-bit preparation of our own: buffers computed, frozen, and no weight made larger."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from qtune.models.placing import owner_of

if TYPE_CHECKING:
    from torch import nn


def freeze(model: nn.Module) -> None:
    """No parameter of the base asks for a gradient."""
    for parameter in model.parameters():
        parameter.requires_grad_(False)


def compute_buffers(network: Any, device: torch.device) -> None:
    """RoPE frequencies and their like, by the model's own initialisation, as transformers does.

    Everything that was read is marked, so that the initialisation leaves it alone.
    """
    for tensor in (*network.parameters(), *network.buffers()):
        tensor._is_hf_initialized = True
    for name, buffer in list(network.named_non_persistent_buffers()):
        owner, leaf = owner_of(network, name)
        owner._buffers[leaf] = torch.empty_like(buffer, device=device)
    network.initialize_weights()
