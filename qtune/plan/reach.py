"""How far gradients go back: what lies in front of the first trained tensor keeps nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtune.plan.adapters import trainable_tensors
from qtune.plan.selective import places_of
from qtune.plan.targets import layer_index

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qtune.plan.shape import ModelShape
    from qtune.recipe.methods import MethodConfig


def first_trained(method: MethodConfig, shape: ModelShape) -> int:
    """The number of the first layer with a trained tensor in or before it; the number of layers
    where only what comes behind them trains."""
    behind = {
        place.module
        for place in places_of(shape)
        if place.part in ("norm", "head") and layer_index(place.module) is None
    }
    found = [shape.layers, *(_layer(module, behind, shape) for module in _modules(method, shape))]
    return min(found)


def trained_norms(method: MethodConfig, shape: ModelShape) -> Iterator[tuple[int | None, int]]:
    """Layer and width of each norm that trains: what it gives is kept before its own factor."""
    if not shape.root_norms:  # a LayerNorm needs no more than what it keeps anyway
        return
    norms = {place.module: place.size for place in places_of(shape) if place.part == "norm"}
    widths = {"q_norm": shape.heads, "k_norm": shape.key_value_heads}
    for module in dict.fromkeys(_modules(method, shape)):
        if module in norms:
            leaf = module.rpartition(".")[2]
            yield layer_index(module), norms[module] * widths.get(leaf, 1)


def _modules(method: MethodConfig, shape: ModelShape) -> Iterator[str]:
    for tensor in trainable_tensors(method, shape):
        yield tensor.module


def _layer(module: str, behind: set[str], shape: ModelShape) -> int:
    layer = layer_index(module)
    if layer is not None:
        return layer
    return shape.layers if module in behind or module in shape.class_heads else 0
