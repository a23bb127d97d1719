"""Layers that come to slots: what an error on the way leaves behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from qtune.models.layer_slots import Slots

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


class Refusing:
    """Writes the layer's number into its slot, but for the calls that lack memory."""

    def __init__(self, *refused: int) -> None:
        self.calls = 0
        self._refused = refused

    def start(self, layer: int, slot: Tensor) -> Callable[[], object]:
        self.calls += 1
        if self.calls in self._refused:
            raise MemoryError
        return lambda: slot.fill_(layer)


@pytest.mark.parametrize("refused", range(1, 9))
def test_a_layer_that_could_not_be_sent_for_is_sent_for_again(refused: int) -> None:
    buffers = [torch.zeros(1), torch.zeros(1)]
    slots = Slots(Refusing(refused), buffers, layers=5)
    failures = 0
    for _ in range(2):  # the pass that fails, and the one that is done again
        try:
            for layer in (0, 1, 2, 3, 4, 3, 2, 1, 0):
                slots.require(layer)
                assert buffers[layer % 2].item() == layer
        except MemoryError:
            failures += 1
    assert failures == 1
