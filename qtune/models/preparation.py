"""k-bit preparation of our own: frozen, checkpointed, and no weight made larger."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


def freeze(model: nn.Module) -> None:
    """No parameter of the base asks for a gradient."""
    for parameter in model.parameters():
        parameter.requires_grad_(False)


def use_checkpointing(model: Any) -> None:
    """Recompute each layer in the backward pass; non-reentrant keeps the adapters' gradients."""
    model.config.use_cache = False
    # transformers 5.23 renames the switch; v6 drops the old name.
    enable = getattr(model, "activation_checkpointing_enable", None)
    enable = enable or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})
    # Asking the embedding's output for gradients is for the reentrant form; it costs a backward.
    model.disable_input_require_grads()
