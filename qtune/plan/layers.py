"""The frozen layers that hold quantised weights: what they take, and where they may be.

Whole on the device; streamed, two of them there and the rest in pinned host memory or, on a CPU, in
the file; or shared out (torch's FSDP2): a part of every layer's values, on the device or in host
memory, and copies of a layer, the one that computes and two that arrive.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil
from typing import TYPE_CHECKING, Literal

from qtune.plan.plan import MemoryItem
from qtune.plan.targets import layer_index
from qtune.plan.weights import constant_bytes, weight_bytes
from qtune.sizes import human

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from qtune.plan.shape import ModelShape
    from qtune.plan.way import Way
    from qtune.plan.weights import Holding

GATHERED = 3


@dataclass(frozen=True)
class LayerBytes:
    """Layers that hold quantised weights: how many, and the bytes of the largest."""

    number: int
    packed: int
    """Its quantised values alone."""
    packed_together: int
    """Those of all layers that are numbered, which can be shared out."""
    folded: int
    """As it is quantised, with its constants."""
    unfolded: int
    """The same weights in the compute dtype."""


def layers_of(shape: ModelShape, holding: Holding) -> LayerBytes:
    """The layers of a model as they are held."""
    packed: dict[int | None, int] = {}
    folded: dict[int | None, int] = {}
    unfolded: dict[int | None, int] = {}
    for linear in shape.linears:
        if holding.quantizes(linear):
            layer = layer_index(linear.name)
            values = weight_bytes(linear, holding)
            packed[layer] = packed.get(layer, 0) + values
            folded[layer] = folded.get(layer, 0) + values + constant_bytes(linear, holding)
            size = linear.weights * holding.compute_bytes
            unfolded[layer] = unfolded.get(layer, 0) + size
    return LayerBytes(
        number=len(folded),
        packed=max(packed.values(), default=0),
        packed_together=sum(size for layer, size in packed.items() if layer is not None),
        folded=max(folded.values(), default=0),
        unfolded=max(unfolded.values(), default=0),
    )


def layers_held(
    layers: LayerBytes,
    quantized: Sequence[MemoryItem],
    way: Way,
    *,
    processes: int,
    device: Literal["cpu", "cuda"],
) -> Iterator[MemoryItem]:
    """What one of the processes holds of the layers; `quantized`: values and constants of all."""
    if way.strategy == "fsdp":
        yield from _shared(layers, quantized, processes=processes, offload=way.offload)
    elif way.base == "resident":
        yield from quantized
        if number := way.dequantized_layers:
            reason = f"{number} of {layers.number}, kept"
            yield _item("unfolded layers", number * layers.unfolded, reason)
    else:
        where: Literal["host", "disk"] = "host" if device == "cuda" else "disk"
        yield from (replace(item, where=where) for item in quantized)
        yield _item("layers on their way", 2 * layers.folded, "two, each when it is its turn")


def _shared(
    layers: LayerBytes, quantized: Sequence[MemoryItem], *, processes: int, offload: bool
) -> Iterator[MemoryItem]:
    """A part of every layer, the whole of a few, and what is not in parts."""
    values, *rest = quantized
    size = values.bytes - layers.packed_together + ceil(layers.packed_together / processes)
    reason = f"one of {processes} parts of {human(values.bytes)}"
    yield replace(values, bytes=size, where="host" if offload else "device", reason=reason)
    yield from rest
    reason = "the one that computes, and two that arrive"
    yield _item("gathered layers", GATHERED * layers.packed, reason)
    if offload:
        yield _item("parts on their way", 2 * ceil(layers.packed / processes), "from the host")


def _item(part: str, size: int, reason: str) -> MemoryItem:
    return MemoryItem(part=part, bytes=size, where="device", reason=reason)
