"""Which tensors of a model selective tuning means: parts x layers x types, all three of them.

What lies in no layer is chosen by its part alone (embedding, head), or, as a final norm, only where
every layer is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qtune.errors import UsageError
from qtune.plan.targets import layer_index

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from qtune.plan.shape import ModelShape
    from qtune.recipe.methods import LongLoraConfig, SelectiveConfig

_ATTENTION = ("attn", "attention")


@dataclass(frozen=True)
class Place:
    """One parameter by its module and its name there."""

    module: str
    end: str
    part: str
    """attention, mlp, norm, embedding or head."""
    size: int
    """Elements."""
    linear: bool


def place_of(module: str, end: str, *, dimensions: int, size: int, linear: bool) -> Place:
    """A parameter outside of the head, with its part as its names tell it."""
    if linear:
        *path, _ = module.lower().split(".")
        inside = any(word in step for step in path for word in _ATTENTION)
        part = "attention" if inside else "mlp"
    else:
        part = "embedding" if dimensions > 1 else "norm"
    return Place(module, end, part, size, linear)


def places_of(shape: ModelShape) -> list[Place]:
    """Every parameter of a model's shape; a head that is tied is a tensor of its own here."""
    found: list[Place] = []
    for linear in shape.linears:
        ends = [("weight", 2, linear.weights)]
        ends += [("bias", 1, linear.biases)] if linear.bias else []
        found += [
            place_of(linear.name, end, dimensions=n, size=size, linear=True)
            for end, n, size in ends
        ]
    for tensor in shape.other:
        end = tensor.name.rpartition(".")[2]
        size, dimensions = tensor.parameters, len(tensor.size)
        found.append(place_of(tensor.module, end, dimensions=dimensions, size=size, linear=False))
    head = shape.head
    found.append(Place(head.name, "weight", "head", head.weights, linear=True))
    if head.bias:
        found.append(Place(head.name, "bias", "head", head.biases, linear=True))
    return found


def selected(config: SelectiveConfig, places: Iterable[Place]) -> list[Place]:
    """The places that all filters leave; `UsageError` when that is none."""
    places = list(places)
    layers = _layers(config, places)
    chosen = [place for place in places if _is_chosen(config, place, layers)]
    if not chosen:
        raise UsageError(
            "no parameter of the model is chosen",
            place="method.parts",
            hint=f"it has {', '.join(sorted({f'{p.part} {p.end}' for p in places}))}",
        )
    return chosen


def trained_weights(config: SelectiveConfig, shape: ModelShape) -> Iterator[str]:
    """Full names of the linears whose matrices train: a 4-bit one never can."""
    for place in selected(config, places_of(shape)):
        if place.linear and place.end == "weight" and place.part != "head":
            yield place.module


def modules_of(config: LongLoraConfig, places: Iterable[Place]) -> list[str]:
    """The norms and the input embeddings that LongLoRA trains whole, by full name."""
    wanted = ("norm",) * config.train_norms + ("embedding",) * config.train_embeddings
    return list(dict.fromkeys(place.module for place in places if place.part in wanted))


def _is_chosen(config: SelectiveConfig, place: Place, layers: frozenset[int] | None) -> bool:
    layer = layer_index(place.module)
    inside = layer is not None or place.part == "norm"
    if inside and layers is not None and layer not in layers:
        return False
    if place.part not in config.parts:
        return False
    if config.pattern is not None and not re.fullmatch(config.pattern, place.module):
        return False
    return ("bias" if place.end == "bias" else "weight") in config.types


def _layers(config: SelectiveConfig, places: list[Place]) -> frozenset[int] | None:
    """The numbers of the chosen layers; None for all."""
    wanted = config.layers_to_transform
    if not wanted:
        return None
    known = sorted({n for place in places if (n := layer_index(place.module)) is not None})
    if isinstance(wanted, str):
        end, _, number = wanted.partition(":")
        count = int(number)
        chosen = known[:count] if end == "first" else known[-count:]
        missing = count > len(known)
    else:
        chosen = list(wanted)
        missing = not set(wanted) <= set(known)
    if missing:
        raise UsageError(
            f"the model has no such layers: {wanted if isinstance(wanted, str) else list(wanted)}",
            place="method.layers_to_transform",
            hint=f"it has {len(known)}",
        )
    return frozenset(chosen)
