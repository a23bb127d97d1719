"""Output tensors from base tensors and the edits of them: W' = edit(W) in fp32, rows by rows."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from threading import Event
from typing import TYPE_CHECKING

import torch

from qtune.merging.account import Effect, check_finite, check_shape, measured
from qtune.merging.bases import Rows
from qtune.merging.shard_file import on_cores
from qtune.merging.sheet import Block

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from torch import Tensor

    from qtune.merging.bases import Base
    from qtune.merging.blueprint import Blueprint
    from qtune.merging.layout import Layout
    from qtune.methods.base import Edit
    from qtune.models.writing import TensorSpec

AT_ONCE = 2**18  # elements of a block: what is made of them on the way stays in a core's cache
SAMPLED = 16  # one of so many blocks of a tensor is measured; all are checked


class Folding:
    """Says how each block of the output tensors is made."""

    def __init__(
        self, blueprint: Blueprint, layout: Layout, edits: Mapping[str, Edit], *, base: Base
    ) -> None:
        self._blueprint = blueprint
        self._layout = layout
        self._edits = edits
        self._base = base
        self._cores = torch.get_num_threads()

    def blocks(self, spec: TensorSpec) -> Iterator[Block]:
        """The rows of the output tensor of a spec, from the first to the last; a block of an edited
        tensor tells its `Effect`."""
        edit = self._edits.get(spec.name)
        rows = self._rows(spec)
        tensor: _Kept | _Edited
        if edit is None:
            tensor = _Kept(rows)
        elif edit.by_rows is None:
            tensor = self._whole(spec, edit, rows)
        else:
            tensor = _Edited(spec.name, rows, partial(self._fold, spec, edit))
        for number, (start, stop) in enumerate(rows.spans(AT_ONCE)):
            shape = (stop - start, *spec.shape[1:])
            yield Block(shape, spec.dtype, partial(tensor.make, number, start, stop))

    def _whole(self, spec: TensorSpec, edit: Edit, rows: Rows) -> _Kept:
        """The result of an edit that needs all rows."""
        with on_cores(self._cores):
            base = rows.whole().float()
            edited = edit.apply(self._input(spec, edit, base))
        check_shape(spec.name, base, edited)
        result = edited.to(spec.dtype)
        check_finite(spec.name, edited, result)
        found = result.view(-1, *spec.shape[1:])
        whole = Rows(spec.shape, lambda start, stop: found[start:stop])
        return _Kept(whole, measured(spec.name, base, edited, result))

    def _fold(self, spec: TensorSpec, edit: Edit, base: Tensor, start: int, stop: int) -> Tensor:
        assert edit.by_rows is not None
        return edit.by_rows(self._input(spec, edit, base), start, stop)

    def rows(self, spec: TensorSpec) -> Rows:
        """The output tensor of a spec by its rows; nothing of it is taken into account."""
        edit = self._edits.get(spec.name)
        rows = self._rows(spec)
        if edit is None:
            return replace(rows, read=lambda *span: rows.read(*span).to(spec.dtype))
        if edit.by_rows is None:
            given = self._input(spec, edit, rows.whole().float())
            whole = edit.apply(given).to(spec.dtype)
            return Rows(spec.shape, lambda start, stop: whole[start:stop])
        fold = edit.by_rows

        def read(start: int, stop: int) -> Tensor:
            given = self._input(spec, edit, rows.read(start, stop).float())
            return fold(given, start, stop).to(spec.dtype)

        return replace(rows, read=read)

    def _input(self, spec: TensorSpec, edit: Edit, base: Tensor) -> Tensor | None:
        """What an edit is given: the base, unless it needs none or there is none."""
        return base if edit.needs_base and spec.name in self._layout.origins else None

    def _rows(self, spec: TensorSpec) -> Rows:
        """What the base has in the place of an output tensor; zeros for a new one."""
        origin = self._layout.origins.get(spec.name)
        if origin is None:
            rest = spec.shape[1:]
            return Rows(spec.shape, lambda start, stop: torch.zeros(stop - start, *rest))
        if origin not in self._blueprint.parameters:
            stored = self._blueprint.stored[origin]
            checkpoint = self._blueprint.checkpoint
            return Rows(spec.shape, lambda start, stop: checkpoint.rows(stored, start, stop))
        return self._base.rows(origin)


@dataclass(frozen=True)
class _Kept:
    """Rows that are written as they are."""

    rows: Rows
    effect: Effect | None = None
    """Of the edit that made all of them."""

    def make(self, number: int, start: int, stop: int, place: Tensor) -> Effect | None:
        """Fill the place of some rows."""
        place.copy_(self.rows.read(start, stop).view(place.shape))
        return None if number else self.effect


@dataclass(frozen=True)
class _Edited:
    """Rows that are edited on their way."""

    name: str
    rows: Rows
    fold: Callable[[Tensor, int, int], Tensor]
    changed: Event = field(default_factory=Event)
    """Some block is another than before: no other is looked at for that."""

    def make(self, number: int, start: int, stop: int, place: Tensor) -> Effect:
        """Fill the place of some rows."""
        base = self.rows.read(start, stop).float()
        sampled = number % SAMPLED == 0
        before = base.clone() if sampled or not self.changed.is_set() else base
        edited = self.fold(base, start, stop)
        check_shape(self.name, before, edited)
        place.copy_(edited.view(place.shape))
        check_finite(self.name, edited, place)
        if sampled:
            effect = measured(self.name, before, edited, place)
        else:
            effect = Effect(self.name, before is base or not torch.equal(edited, before))
        if effect.changed:
            self.changed.set()
        return effect
