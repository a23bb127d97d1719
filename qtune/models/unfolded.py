"""Keep the 4-bit weights of the first layers unfolded, too, where memory is left for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch.nn import functional

from qtune.ops.dense import keep_dense, kept_dense
from qtune.ops.nf4 import bits_of
from qtune.ops.spread import is_spread
from qtune.plan.targets import layer_index

if TYPE_CHECKING:
    from torch import Tensor, nn


class UnfoldedLinear:
    """A 4-bit linear that multiplies with the dense weight that is kept beside its own."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., M] -> [..., N], bit for bit what unfolding the weight anew gives."""
        layer: Any = self
        weight = kept_dense(layer)
        if weight is None:
            return super().forward(x)  # type: ignore[misc, no-any-return]
        return functional.linear(x.to(weight.dtype), weight, layer.bias).to(x.dtype)


def keep_unfolded(model: nn.Module, layers: int) -> int:
    """Unfold the 4-bit linears of the first `layers` numbered layers; returns the bytes it takes.

    8-bit layers stay as they are: on a GPU they multiply in int8.
    """
    total = 0
    for name, module in model.named_modules():
        index = layer_index(name)
        if index is None or index >= layers or bits_of(module) != 4:
            continue
        assert not is_spread(module.weight), "the plan keeps nothing unfolded of shards"
        total += keep_dense(module)
        if not isinstance(module, UnfoldedLinear):
            module.__class__ = unfolded_class(type(module))
    return total


def unfolded_class(plain: type) -> type:
    """A class with the kept weight's product in front of everything of a layer's own class."""
    if plain not in _made:
        _made[plain] = type(f"Unfolded{plain.__name__}", (UnfoldedLinear, plain), {})
    return _made[plain]


_made: dict[type, type] = {}
