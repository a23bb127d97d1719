"""Bytes that methods other than plain LoRA keep for the backward pass, for each token of a layer.

Legend as in `activations`, d hidden, w a bottleneck's width, P prefix positions, L tokens of a row.

  AdaLoRA     each linear: its input in the adapter's dtype a m, a dropout mask, 2 a r
  Quantum     each linear: its input in fp32 4 m, and 8 r
  bottleneck  each place: its input in fp32 4 d, what the activation gives 4 w, but for relu what
              it takes 4 w
  selective   each linear whose matrix trains: its input in fp32 4 m
  norms       that train, by selective tuning or beside LoRA: c h, what their factor is learnt of
  prefix      keys and values spread over all heads for P more positions: 2 c q P / L

Nothing in front of the first trained tensor keeps anything: no gradient goes there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtune.plan.adapters import DTYPE_BYTES, adapted_linears, targeted_linears
from qtune.plan.quantum import kept_bytes
from qtune.plan.reach import first_trained, trained_norms
from qtune.plan.selective import places_of, selected, trained_weights
from qtune.plan.sites import bottleneck_places, sites_of
from qtune.plan.targets import layer_index
from qtune.recipe.methods import (
    AdaloraConfig,
    BottleneckConfig,
    LoraFaConfig,
    PrefixConfig,
    QuantumConfig,
    SelectiveConfig,
    parts_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qtune.plan.shape import ModelShape
    from qtune.recipe.methods import BridgeConfig, MethodConfig, SingleMethod


def kept_by_layer(
    method: MethodConfig, shape: ModelShape, *, compute_bytes: int, mask_bytes: int, length: int
) -> dict[int | None, int]:
    """What each layer keeps for the parts of a method that are no plain low-rank adapters."""
    kept: dict[int | None, int] = {}
    for layer, width in trained_norms(method, shape):
        if layer is not None:
            kept[layer] = kept.get(layer, 0) + compute_bytes * width
    for part in parts_of(method):
        for layer, size in _of_part(part, shape, mask_bytes):
            kept[layer] = kept.get(layer, 0) + size
        if isinstance(part, PrefixConfig):
            spread = 2 * compute_bytes * shape.heads * shape.head_dim
            each = spread * part.num_virtual_tokens // length
            kept |= {layer: kept.get(layer, 0) + each for layer in range(shape.layers)}
    return kept


def columns_by_layer(method: MethodConfig, shape: ModelShape) -> dict[int | None, int]:
    """What making Quantum-PEFT's columns keeps in each layer, whatever the tokens."""
    kept: dict[int | None, int] = {}
    parts = [part for part in parts_of(method) if isinstance(part, QuantumConfig)]
    for part in parts:
        for linear in targeted_linears(part, shape):
            layer, sides = layer_index(linear.name), (linear.out_features, linear.in_features)
            size = sum(kept_bytes(part, side) for side in sides)
            kept[layer] = kept.get(layer, 0) + size
    return kept


def frozen_bytes(method: MethodConfig, shape: ModelShape) -> int:
    """LoRA-FA's A, which stays as it was drawn, is in the adapter's file, and has no gradient."""
    return sum(
        DTYPE_BYTES[part.dtype] * each.rank * each.linear.in_features
        for part in parts_of(method)
        if isinstance(part, LoraFaConfig)
        for each in adapted_linears(part, shape)
    )


def products_of(method: MethodConfig, shape: ModelShape) -> int:
    """Outputs of the first matrices of such parts in all layers together."""
    size = 0
    for part in parts_of(method):
        if isinstance(part, AdaloraConfig):
            size += DTYPE_BYTES[part.dtype] * part.rank * len(targeted_linears(part, shape))
        if isinstance(part, QuantumConfig):
            size += 4 * part.rank * len(targeted_linears(part, shape))
        if isinstance(part, SelectiveConfig):
            trained = set(trained_weights(part, shape))
            # in fp32 instead of the 16 bits that are counted for every linear
            size += sum(2 * each.out_features for each in shape.linears if each.name in trained)
        if isinstance(part, BottleneckConfig):
            size += 4 * part.width * len(_places(part, shape))
    return size


def unreached(method: MethodConfig, shape: ModelShape, *, own: int, attention: int) -> int:
    """What layers without a trained part in or before them do not keep; `own`: of one layer, of it
    `attention` by its attention."""
    first = first_trained(method, shape)
    if first == shape.layers:
        return first * own
    norm = (4 if shape.root_norms else 2) * shape.hidden_size
    idle = [
        min(own, _idle(part, shape, first, own=own, attention=attention, norm=norm))
        for part in parts_of(method)
        if first_trained(part, shape) == first
    ]
    return first * own + min(idle)


def _idle(
    part: SingleMethod | BridgeConfig,
    shape: ModelShape,
    first: int,
    *,
    own: int,
    attention: int,
    norm: int,
) -> int:
    """Of the first layer that a gradient comes to, what stands before the trained tensors."""
    if isinstance(part, BottleneckConfig):
        return attention + norm if part.placement == "houlsby" else own
    if not isinstance(part, SelectiveConfig):
        return 0
    chosen = {p.part for p in selected(part, places_of(shape)) if layer_index(p.module) == first}
    if "norm" in chosen or "embedding" in part.parts:
        return 0
    return norm if "attention" in chosen else attention + 2 * norm


def _of_part(
    part: SingleMethod | BridgeConfig, shape: ModelShape, mask_bytes: int
) -> Iterator[tuple[int | None, int]]:
    if isinstance(part, AdaloraConfig):
        each = DTYPE_BYTES[part.dtype]
        mask = mask_bytes if part.dropout else 0
        for linear in targeted_linears(part, shape):
            size = (each + mask) * linear.in_features + 2 * each * part.rank
            yield layer_index(linear.name), size
    if isinstance(part, SelectiveConfig):
        trained = set(trained_weights(part, shape))
        for linear in shape.linears:
            if linear.name in trained:
                yield layer_index(linear.name), 4 * linear.in_features
    if isinstance(part, QuantumConfig):
        for linear in targeted_linears(part, shape):
            yield layer_index(linear.name), 4 * linear.in_features + 8 * part.rank
    if isinstance(part, BottleneckConfig):
        steps = 1 if part.activation == "relu" else 2
        for place in _places(part, shape):
            yield layer_index(place), 4 * (shape.hidden_size + steps * part.width)


def _places(part: BottleneckConfig, shape: ModelShape) -> list[str]:
    outputs = {linear.name: linear.out_features for linear in shape.linears}
    return bottleneck_places(part, sites_of(outputs, hidden_size=shape.hidden_size))
