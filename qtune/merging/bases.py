"""The weights that an adapter is added to: those it was trained on, or the stored originals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from qtune.models.placing import owner_of, place, place_packed
from qtune.models.shards import read_tensors
from qtune.ops.nf4 import is_quantized, weight_of

if TYPE_CHECKING:
    from torch import Tensor

    from qtune.merging.blueprint import Blueprint
    from qtune.recipe.sections import QuantizationSection

CPU = torch.device("cpu")


def read(base: Blueprint, name: str) -> Tensor:
    """A stored tensor by the checkpoint's name, in memory of its own."""
    ((_, tensor),) = read_tensors(base.checkpoint.index[name], [name])
    return tensor


class OriginalBase:
    """The stored weights: another model than the one that was trained."""

    def __init__(self, base: Blueprint) -> None:
        self._base = base

    def weight(self, name: str) -> Tensor:
        """By the model's name, in the stored dtype."""
        return read(self._base, self._base.stored[name])


class TrainedBase:
    """What the quantised base computes with: every tensor goes through the loader's own hands.

    It is put into the empty network (cast, quantised), read back dense, and taken out again.
    """

    def __init__(self, base: Blueprint, quantization: QuantizationSection) -> None:
        self._base = base
        self._quantization = quantization

    def weight(self, name: str) -> Tensor:
        """By the model's name; dense, in the dtype that the loaded model computes with."""
        owner, leaf = owner_of(self._base.network, name)
        empty = owner._parameters[leaf]
        self._place(name)
        quantized = leaf == "weight" and is_quantized(owner)
        value: Tensor = weight_of(owner) if quantized else owner._parameters[leaf].detach()
        owner._parameters[leaf] = empty
        if hasattr(owner, "quant_state"):
            owner.quant_state = None
        return value

    def _place(self, name: str) -> None:
        base = self._base
        origin = base.stored[name]
        if origin not in base.packed.weights:
            place(base.network, name, read(base, origin), self._quantization, CPU)
            return
        constants = base.packed.four_bit.get(origin) or base.packed.eight_bit[origin]
        parts = {constant: read(base, stored) for constant, stored in constants.items()}
        place_packed(
            base.network,
            name,
            parts | {"weight": read(base, origin)},
            dtype=getattr(torch, self._quantization.compute_dtype),
            device=CPU,
        )
