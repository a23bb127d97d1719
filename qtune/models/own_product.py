"""4-bit linears that ask our product: for a gathered weight, or one that bitsandbytes misreads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtune.ops.frozen_product import frozen_product
from qtune.ops.linears import features
from qtune.ops.nf4 import BLOCK_SIZE, bits_of, packed_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


class OwnProduct:
    """Goes in front of a 4-bit linear's own class, whose forward wants bitsandbytes' weight."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., M] -> [..., N] in x's dtype, computed in the layer's."""
        layer: Any = self
        codes, state = packed_of(layer)
        dtype = layer.compute_dtype
        bias = None if layer.bias is None else layer.bias.to(dtype)
        return frozen_product(x.to(dtype), codes, state, bias).to(x.dtype)


def ask_own_product(layer: nn.Module) -> None:
    """Make this one instance ask it."""
    plain = type(layer)
    if plain not in _made:
        _made[plain] = type(f"Own{plain.__name__}", (OwnProduct, plain), {})
    layer.__class__ = _made[plain]


def ask_where_misread(network: nn.Module, device: torch.device) -> None:
    """Make every layer ask it whose rows are no whole blocks: see `ops.nf4.is_misread`."""
    if device.type != "cpu":
        return
    for layer in list(network.modules()):
        if bits_of(layer) == 4 and not isinstance(layer, OwnProduct):
            inputs, _ = features(layer)
            if inputs % BLOCK_SIZE:
                ask_own_product(layer)


_made: dict[type, type] = {}
