"""Room for a few layers on the device, into which all layers of a model come in turn.

Layer i always comes to slot i modulo their number, so the views of its weights never move. While
one layer computes, the one that came after it last time is already on its way.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

NOWHERE = -1


class Source(Protocol):
    """Where layers wait."""

    def start(self, layer: int, slot: Tensor) -> Callable[[], object]:
        """Start the way of a layer into a slot with whose content nothing computes from now on;
        what is returned waits until later computations find the layer there."""


class Slots:
    """Which layer is where, and which comes next."""

    def __init__(self, source: Source, buffers: Sequence[Tensor], *, layers: int) -> None:
        self.layers = layers
        self.moves = [0] * layers
        """How many times each layer was sent for."""
        self.waited = 0.0
        """Seconds that computations waited for layers."""
        self._source = source
        self._buffers = buffers
        self._held = [NOWHERE] * len(buffers)
        self._arrivals: list[Callable[[], object] | None] = [None] * len(buffers)
        self._before, self._current = NOWHERE, NOWHERE
        self._followers: dict[tuple[int, int], int] = {}

    def require(self, layer: int) -> None:
        """Return when the layer is in its slot, and send for the next one.

        Whoever computes with a layer asks for it right before: others may take its slot later.
        """
        if layer == self._current:
            return
        before, current = self._before, self._current
        self._before, self._current = NOWHERE, NOWHERE  # if an error comes, nothing is known
        self._send_for(layer)
        self._await(self._slot(layer))
        self._followers[before, current] = layer
        self._before, self._current = current, layer
        self._send_ahead()

    def _send_ahead(self) -> None:
        """Send for the layer that followed on these two last time, at first for a third in line."""
        before, current = self._before, self._current
        following = self._followers.get((before, current), 2 * current - before)
        if 0 <= following < self.layers and self._slot(following) != self._slot(current):
            self._send_for(following)

    def _send_for(self, layer: int) -> None:
        slot = self._slot(layer)
        if self._held[slot] != layer:
            self._held[slot] = NOWHERE  # until it is on its way: there may be no memory for that
            self._arrivals[slot] = self._source.start(layer, self._buffers[slot])
            self._held[slot] = layer
            self.moves[layer] += 1

    def _await(self, slot: int) -> None:
        arrive, self._arrivals[slot] = self._arrivals[slot], None
        if arrive is None:
            return
        started = time.perf_counter()
        try:
            arrive()
        except BaseException:
            self._held[slot] = NOWHERE
            raise
        finally:
            self.waited += time.perf_counter() - started

    def _slot(self, layer: int) -> int:
        return layer % len(self._buffers)
