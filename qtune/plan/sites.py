"""Where a decoder layer writes to its residual stream, read off the names of its linear modules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qtune.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from qtune.recipe.methods import BottleneckConfig

_ATTENTION = ("attn", "attention")


@dataclass(frozen=True)
class Sites:
    """The modules of one layer whose outputs are added to the stream."""

    layer: int
    attention: str
    """The linear that ends the attention."""
    mlp: str
    """The MLP's module, or the linear that ends it where it has no module of its own."""
    apart: bool
    """The MLP has a module of its own, so that its input can be had."""


def sites_of(outputs: Mapping[str, int], *, hidden_size: int) -> tuple[Sites, ...]:
    """Sites of every layer; `outputs` gives the out_features of each linear by its full name.

    Layers without an attention or an MLP that ends in `hidden_size` are left out.
    """
    layers: dict[int, list[tuple[list[str], list[str]]]] = {}
    for name, size in outputs.items():
        parts = name.split(".")
        place = next((at for at, part in enumerate(parts) if part.isdecimal()), None)
        if place is not None and size == hidden_size:
            within = (parts[: place + 1], parts[place + 1 :])
            layers.setdefault(int(parts[place]), []).append(within)
    return tuple(
        Sites(number, attention, mlp, apart)
        for number, linears in sorted(layers.items())
        for attention, mlp, apart in _of_layer(linears)
    )


def _of_layer(linears: Iterable[tuple[list[str], list[str]]]) -> list[tuple[str, str, bool]]:
    """(attention, MLP, apart) of one layer's linears, each as (path of the layer, path in it)."""
    attention = mlp = ""
    apart = False
    for layer, inside in linears:
        if any(word in inside[0].lower() for word in _ATTENTION):
            attention = ".".join([*layer, *inside])
        else:
            apart = len(inside) > 1
            mlp = ".".join([*layer, inside[0]])
    return [(attention, mlp, apart)] if attention and mlp else []


def bottleneck_places(config: BottleneckConfig, sites: tuple[Sites, ...]) -> list[str]:
    """Full names of the modules that get an adapter; `UsageError` when there is no fitting one."""
    layers = config.layers_to_transform
    chosen = [site for site in sites if not layers or site.layer in layers]
    if not chosen:
        raise UsageError("no layer of the model has an attention and an MLP to adapt")
    if config.placement == "parallel" and not all(site.apart for site in chosen):
        raise UsageError(
            "the layers of this model have no module for the MLP alone",
            place="method.placement",
            hint="take houlsby or pfeiffer",
        )
    if config.placement == "houlsby":
        return [name for site in chosen for name in (site.attention, site.mlp)]
    return [site.mlp for site in chosen]
