"""The weights that an adapter is added to: those it was trained on, or the stored originals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from qtune.models.placing import owner_of, place, place_packed
from qtune.ops.nf4 import is_quantized, weight_of

if TYPE_CHECKING:
    from torch import Tensor

    from qtune.merging.blueprint import Blueprint
    from qtune.recipe.inputs import QuantizationSection

CPU = torch.device("cpu")


class OriginalBase:
    """The stored weights: another model than the one that was trained."""

    def __init__(self, base: Blueprint) -> None:
        self._base = base

    def weight(self, name: str) -> Tensor:
        """By the model's name, in the stored dtype."""
        return self._base.checkpoint.read(self._base.stored[name])


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
            place(base.network, name, base.checkpoint.read(origin), self._quantization, CPU)
            return
        parts = base.checkpoint.constants(base.packed, origin)
        place_packed(
            base.network,
            name,
            parts | {"weight": base.checkpoint.read(origin)},
            dtype=getattr(torch, self._quantization.compute_dtype),
            device=CPU,
        )
