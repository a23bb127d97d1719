"""One output tensor from one base tensor and the edit of it: W' = edit(W), in fp32."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Protocol

import torch

from qtune.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from qtune.merging.blueprint import Blueprint
    from qtune.merging.layout import Layout
    from qtune.methods.base import Edit
    from qtune.models.writing import TensorSpec

_CHUNK = 2**22  # elements whose fp32 difference exists at a time


class Base(Protocol):
    """Where the weights come from that edits are applied to."""

    def weight(self, name: str) -> Tensor:
        """A parameter, dense."""


class Folding:
    """Produces the output tensors one by one and keeps account of what the edits did."""

    def __init__(
        self, blueprint: Blueprint, layout: Layout, edits: Mapping[str, Edit], *, base: Base
    ) -> None:
        self._blueprint = blueprint
        self._layout = layout
        self._edits = edits
        self._base = base
        self._without_effect: list[str] = []
        self._change = 0.0
        self._rounding = 0.0

    def tensor(self, spec: TensorSpec) -> Tensor:
        """The output tensor of a spec, in its dtype."""
        edit = self._edits.get(spec.name)
        origin = self._layout.origins.get(spec.name)
        if origin is None:
            return self._created(spec, edit)
        if origin not in self._blueprint.parameters:
            return self._blueprint.checkpoint.read(self._blueprint.stored[origin])
        base = self._base.weight(origin)
        return base.to(spec.dtype) if edit is None else self._edited(spec, base.float(), edit)

    @property
    def rounding(self) -> float:
        """Norm of what rounding to the output dtype cost, over the norm of the change."""
        return math.sqrt(self._rounding / self._change) if self._change else 0.0

    def check(self) -> None:
        """Raise `ModelError` if an edit changed nothing: an adapter that was not trained."""
        names = self._without_effect
        if names:
            raise ModelError(
                f"{len(names)} of {len(self._edits)} edits change nothing: {', '.join(names[:3])}",
                hint="the adapter is untrained or belongs elsewhere; nothing was written",
            )

    def _edited(self, spec: TensorSpec, base: Tensor, edit: Edit) -> Tensor:
        edited = edit.apply(base if edit.needs_base else None)
        if edited.shape != base.shape:
            raise ModelError(
                f"the adapter makes {spec.name} {list(edited.shape)}, the base has "
                f"{list(base.shape)}",
                hint="it belongs to another base",
            )
        self._account(spec.name, edited, base, result := edited.to(spec.dtype))
        return result

    def _created(self, spec: TensorSpec, edit: Edit | None) -> Tensor:
        zeros = torch.zeros(spec.shape, dtype=torch.float32)
        if edit is None:
            return zeros.to(spec.dtype)
        edited = edit.apply(None)
        self._account(spec.name, edited, zeros, result := edited.to(spec.dtype))
        return result

    def _account(self, name: str, edited: Tensor, base: Tensor, result: Tensor) -> None:
        change = _squared_distance(edited, base)
        if not math.isfinite(change):
            raise ModelError(
                f"the adapter makes {name} NaN or infinite", hint="nothing was written"
            )
        if change == 0.0:
            self._without_effect.append(name)
        self._change += change
        self._rounding += _squared_distance(result, edited)


def _squared_distance(one: Tensor, other: Tensor) -> float:
    """Sum of (one - other)^2, piece by piece."""
    left, right = one.reshape(-1), other.reshape(-1)
    total: Any = 0.0
    for start in range(0, left.numel(), _CHUNK):
        piece = left[start : start + _CHUNK].float() - right[start : start + _CHUNK].float()
        total += float(piece.double().square().sum())
    return float(total)
