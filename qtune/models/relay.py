"""One process reads a base; what it has put into its model is sent to the others, piece by piece.

A piece is a tensor of the model in its final form, a quantised weight with its constants. Its bytes
travel between the devices, so every process holds the same ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from qtune.models.placing import owner_of, place_packed
from qtune.ops.nf4 import bits_of, int8_parts

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from qtune.ranks import Ranks


class Relay:
    """What the first process places, placed at every one."""

    def __init__(
        self, network: Any, ranks: Ranks, *, dtype: torch.dtype, device: torch.device
    ) -> None:
        self._network = network
        self._ranks = ranks
        self._dtype = dtype
        self._device = device

    def send(self, name: str) -> None:
        """Send what now stands under a name of the model."""
        parts = parts_of(self._network, name)
        described = {key: (part.dtype, tuple(part.shape)) for key, part in parts.items()}
        self._ranks.of_first(lambda: (name, described))
        for part in parts.values():
            self._pass(_bytes(part.to(self._device)))

    def end(self) -> None:
        """That was all."""
        self._ranks.of_first(_nothing)

    def receive(self, placed: Callable[[str], None]) -> None:
        """Place what the first one sends until that was all; `placed(name)` after each."""
        while True:
            name, described = self._ranks.of_first(_nothing)
            if name is None:
                return
            parts = {key: self._part(*kind) for key, kind in described.items()}
            put(self._network, name, parts, dtype=self._dtype, device=self._device)
            del parts
            placed(name)

    def _part(self, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
        part = torch.empty(shape, dtype=dtype, device=self._device)
        self._pass(_bytes(part))
        return part

    def _pass(self, content: Tensor) -> None:
        if content.numel():
            self._ranks.send(content)


def parts_of(network: nn.Module, name: str) -> dict[str, Tensor]:
    """A tensor of a model in its parts: a quantised weight with its constants by bitsandbytes'
    names, else itself as `weight`."""
    owner, leaf = owner_of(network, name)
    bits = bits_of(owner) if leaf == "weight" else 16
    if bits == 4:
        return {"weight": owner.weight.data, **owner.weight.quant_state.as_dict(packed=True)}
    if bits == 8:
        codes, maxima = int8_parts(owner)
        return {"weight": codes, "SCB": maxima}
    return {"weight": getattr(owner, leaf).detach()}


def put(
    network: nn.Module,
    name: str,
    parts: dict[str, Tensor],
    *,
    dtype: torch.dtype,
    device: torch.device,
) -> None:
    """Place what `parts_of` gave at another process."""
    owner, leaf = owner_of(network, name)
    if len(parts) > 1:
        place_packed(network, name, parts, dtype=dtype, device=device)
    elif leaf in owner._buffers:
        owner._buffers[leaf] = parts["weight"]
    else:
        owner._parameters[leaf] = nn.Parameter(parts["weight"], requires_grad=False)


def _bytes(tensor: Tensor) -> Tensor:
    """The bytes of a tensor, in its own memory where that is in one piece."""
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def _nothing() -> tuple[str | None, dict[str, Any]]:
    return None, {}
