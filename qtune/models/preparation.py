"""k-bit preparation of our own: frozen, and no weight made larger."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def freeze(model: nn.Module) -> None:
    """No parameter of the base asks for a gradient."""
    for parameter in model.parameters():
        parameter.requires_grad_(False)
