"""A merge that keeps the zeros of a pruned base: what an edit adds in their places is left out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from qtune.errors import UsageError
from qtune.merging.bases import OriginalBase
from qtune.ops.linears import linear_modules

if TYPE_CHECKING:
    from torch import Tensor

    from qtune.merging.bases import Rows
    from qtune.merging.merge import Merge
    from qtune.methods.base import Edit

PLACE = "merge.keep_mask"


def keep_zeros(work: Merge) -> Merge:
    """The merge with the zeros of each edited linear's stored weight kept; `UsageError` where they
    are not known, or the base has none."""
    if work.blueprint.packed.weights:
        raise UsageError(
            "the base is stored quantised: which of its zeros were pruned is not known",
            place=PLACE,
            hint="name the pruned 16-bit model with --base-model",
        )
    original = OriginalBase(work.blueprint)
    linears = {f"{name}.weight" for name in linear_modules(work.blueprint.network)}
    names = [name for name in work.edits if name in linears and name in work.blueprint.stored]
    rows = {name: original.rows(name) for name in names}
    if not any(_has_zeros(each) for each in rows.values()):
        raise UsageError(
            "the base is not pruned: none of the edited weights has zeros to keep", place=PLACE
        )
    masked = {name: _Masked(work.edits[name], rows[name]).edit() for name in names}
    return replace(
        work, edits={**work.edits, **masked}, identity={**work.identity, "keep_mask": True}
    )


@dataclass(frozen=True)
class _Masked:
    """An edit, and the stored weight whose zeros stay."""

    inner: Edit
    rows: Rows

    def edit(self) -> Edit:
        """The edit that keeps them."""
        by_rows = self._by_rows if self.inner.by_rows is not None else None
        return replace(self.inner, apply=self._apply, by_rows=by_rows)

    def _apply(self, base: Tensor | None) -> Tensor:
        return self.inner.apply(base).masked_fill(self.rows.whole() == 0, 0.0)

    def _by_rows(self, base: Tensor | None, start: int, stop: int) -> Tensor:
        assert self.inner.by_rows is not None
        edited = self.inner.by_rows(base, start, stop)
        return edited.masked_fill(self.rows.read(start, stop) == 0, 0.0)


def _has_zeros(rows: Rows) -> bool:
    """Whether one of the first rows has."""
    start, stop = next(rows.spans())
    return bool((rows.read(start, stop) == 0).any())
