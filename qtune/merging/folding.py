"""Output tensors from base tensors and the edits of them: W' = edit(W) in fp32, rows by rows."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch

from qtune.errors import ModelError
from qtune.merging.bases import Rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor

    from qtune.merging.bases import Base
    from qtune.merging.blueprint import Blueprint
    from qtune.merging.layout import Layout
    from qtune.methods.base import Edit
    from qtune.models.writing import TensorSpec

SAMPLED = 4  # one of so many blocks of a tensor is measured; all are checked


@dataclass
class Account:
    """What edits did: squared norms of the change and of what rounding cost, over a sample."""

    change: float = 0.0
    rounding: float = 0.0
    without_effect: list[str] = field(default_factory=list)

    def add(self, other: Account) -> None:
        """Take another's figures to one's own."""
        self.change += other.change
        self.rounding += other.rounding
        self.without_effect += other.without_effect

    @property
    def lost(self) -> float:
        """Norm of what rounding to the output dtype cost, over the norm of the change."""
        return math.sqrt(self.rounding / self.change) if self.change else 0.0


class Folding:
    """Produces the output tensors block by block and keeps account of what the edits did."""

    def __init__(
        self, blueprint: Blueprint, layout: Layout, edits: Mapping[str, Edit], *, base: Base
    ) -> None:
        self._blueprint = blueprint
        self._layout = layout
        self._edits = edits
        self._base = base
        self.account = Account()

    def blocks(self, spec: TensorSpec) -> Iterator[Tensor]:
        """The rows of the output tensor of a spec, in its dtype, from the first to the last."""
        edit = self._edits.get(spec.name)
        rows = self._rows(spec)
        if edit is None:
            for span in rows.spans():
                yield rows.read(*span).to(spec.dtype)
            return
        before = self.account.change
        changed = False
        if edit.by_rows is None:
            base = rows.whole().float()
            edited = edit.apply(self._input(spec, edit, base))
            changed = self._account(spec, edited, base, result := edited.to(spec.dtype))
            yield result
        else:
            for number, (start, stop) in enumerate(rows.spans()):
                base = rows.read(start, stop).float()
                edited = edit.by_rows(self._input(spec, edit, base), start, stop)
                result = edited.to(spec.dtype)
                if number % SAMPLED == 0 or not changed:
                    changed |= self._account(spec, edited, base, result)
                else:
                    _check_finite(spec, edited, result)
                yield result
        if not changed and self.account.change == before:
            self.account.without_effect.append(spec.name)

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

    def _account(self, spec: TensorSpec, edited: Tensor, base: Tensor, result: Tensor) -> bool:
        """Add a block to the account; whether it changed anything. `ModelError` if it is no
        block of the output."""
        if edited.shape != base.shape:
            raise ModelError(
                f"the adapter makes {spec.name} {list(edited.shape)}, the base has "
                f"{list(base.shape)}",
                hint="it belongs to another base",
            )
        _check_finite(spec, edited, result)
        difference = (edited - base).reshape(-1)
        change = _squared(difference)
        changed = change > 0.0 or bool(difference.any())
        rounding = 0.0
        if result.dtype != edited.dtype:
            torch.sub(result, edited, out=difference.view_as(edited))
            rounding = _squared(difference)
        self.account.change += change
        self.account.rounding += rounding
        return changed


def _check_finite(spec: TensorSpec, edited: Tensor, result: Tensor) -> None:
    """`ModelError` for a NaN or an infinity, in fp32 or made by the output dtype."""
    flat = edited.reshape(-1)
    if not math.isfinite(_squared(flat)) and not bool(flat.isfinite().all()):
        raise ModelError(
            f"the adapter makes {spec.name} NaN or infinite", hint="nothing was written"
        )
    if result.dtype == torch.float16 and not bool(result.isfinite().all()):
        raise ModelError(
            f"{spec.name} is too large for float16",
            place="merge.dtype",
            hint="merge with --dtype bfloat16 or float32; nothing was written",
        )


def refuse_idle(account: Account, edits: int) -> None:
    """Raise `ModelError` if an edit changed nothing: an adapter that was not trained."""
    names = account.without_effect
    if names:
        raise ModelError(
            f"{len(names)} of {edits} edits change nothing: {', '.join(names[:3])}",
            hint="the adapter is untrained or belongs elsewhere; nothing was written",
        )


def _squared(values: Tensor) -> float:
    """Sum of squares, in fp64 over pieces that are summed in fp32."""
    total: Any = 0.0
    for piece in values.split(2**18):
        total += float(torch.dot(piece, piece))
    return float(total)
