"""The arithmetic of adapted projections of one input, forward and backward, without autograd.

Legend: T tokens, M inputs, N outputs, r rank of one adapter, R sum of the ranks of all adapters.
The adapters' first products are one product [T, M] x [M, R] unless dropout gives each its own
input. What is wide and in the adapters' dtype exists for some rows at a time only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import torch

from qtune.ops.dense import dense, forward_weight, product
from qtune.ops.halves import add_product

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from qtune.ops.projection import Projection

ROWS = {"cpu": 1024, "cuda": 8192}


@dataclass
class Kept:
    """What the backward pass of some projections needs beside their input."""

    low: Tensor | None = None
    """[T, R], A dropout(x) of all adapters side by side, in their dtype, without scale."""
    masks: list[Tensor | None] = field(default_factory=list)
    """Of each projection: what dropout left of the input, bool [T, M]."""
    products: list[Tensor | None] = field(default_factory=list)
    """Of each projection with a gain: W x [T, N]."""

    def tensors(self) -> list[Tensor | None]:
        """All of it, in a fixed order: 1 + 2 for each projection."""
        return [self.low, *self.masks, *self.products]

    @classmethod
    def of(cls, tensors: Sequence[Tensor | None]) -> Kept:
        """The inverse of `tensors`."""
        low, *rest = tensors
        half = len(rest) // 2
        return cls(low, list(rest[:half]), list(rest[half:]))


class Gradients(NamedTuple):
    """Of one projection's adapter, each where it is wanted."""

    down: Tensor | None = None
    up: Tensor | None = None
    gain: Tensor | None = None


def enter(x_TM: Tensor, projections: Sequence[Projection]) -> Kept:
    """A dropout(x) of all adapters, and their masks, drawn in the order of the projections."""
    masks = [_draw(x_TM, projection) for projection in projections]
    kept = Kept(masks=masks, products=[None] * len(masks))
    downs = [p.down for p in projections if p.down is not None]
    if not downs:
        return kept
    dtype, rank = downs[0].dtype, sum(down.shape[0] for down in downs)
    kept.low = low_TR = x_TM.new_empty((x_TM.shape[0], rank), dtype=dtype)
    if all(mask is None for mask in masks):
        down_RM = torch.cat(downs) if len(downs) > 1 else downs[0]
        for rows in rows_of(x_TM, dtype):
            torch.mm(x_TM[rows].to(dtype), down_RM.t(), out=low_TR[rows])
        return kept
    parts = split(low_TR, projections)
    for projection, mask, part_Tr in zip(projections, masks, parts, strict=True):
        if projection.down is not None and part_Tr is not None:
            for rows in rows_of(x_TM, dtype):
                x = _dropped(x_TM[rows].to(dtype), mask, rows, projection)
                part_Tr[rows] = x @ projection.down.t()
    return kept


def leave(x_TM: Tensor, projections: Sequence[Projection], kept: Kept) -> list[Tensor]:
    """The outputs [T, N] of each projection, in the dtype of x, after `enter`."""
    outputs = []
    lows = split(kept.low, projections)
    for number, (projection, low_Tr) in enumerate(zip(projections, lows, strict=True)):
        weight = forward_weight(projection.base, x_TM)
        output_TN = product(projection.base, x_TM, weight)
        del weight
        if projection.gain is not None:
            bias = getattr(projection.base, "bias", None)
            kept.products[number] = output_TN.clone() if bias is None else output_TN - bias
        if low_Tr is not None:
            _add_update(output_TN, low_Tr, projection, kept.products[number])
        outputs.append(output_TN)
    return outputs


def back(
    gradients_TN: Sequence[Tensor],
    x_TM: Tensor | None,
    projections: Sequence[Projection],
    kept: Kept,
    *,
    input_wanted: bool,
) -> tuple[Tensor | None, list[Gradients]]:
    """Gradients of the input and of each adapter; without an input none of an A."""
    into_TR = None if kept.low is None else torch.empty_like(kept.low)
    parts = split(kept.low, projections), split(into_TR, projections)
    gradient_TM: Tensor | None = None
    found = []
    for gradient_TN, projection, low_Tr, into_Tr, product_TN in zip(
        gradients_TN, projections, *parts, kept.products, strict=True
    ):
        through_TN, gradients = gradient_TN, Gradients()
        if low_Tr is not None and into_Tr is not None:
            through_TN, gradients = _update_back(
                gradient_TN, low_Tr, into_Tr, projection, product_TN
            )
        found.append(gradients)
        if input_wanted:
            weight = dense(projection.base, through_TN.dtype)
            gradient_TM = _accumulate(gradient_TM, through_TN, weight)
            del weight
    downs: list[Tensor | None] = [None] * len(projections)
    if into_TR is not None:
        downs = _enter_back(into_TR, x_TM, projections, kept.masks, gradient_TM)
    return gradient_TM, [
        gradient._replace(down=down) for gradient, down in zip(found, downs, strict=True)
    ]


def rows_of(wide: Tensor, dtype: torch.dtype) -> Iterator[slice]:
    """Slices of the first dimension to cast at a time: in a CPU's cache; all where none is cast."""
    count = wide.shape[0]
    step = max(count, 1) if wide.dtype == dtype else ROWS.get(wide.device.type, 8192)
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))


def split(all_TR: Tensor | None, projections: Sequence[Projection]) -> list[Tensor | None]:
    """The columns [T, r] of each projection, None for those without an adapter."""
    if all_TR is None:
        return [None] * len(projections)
    parts = iter(all_TR.split([p.rank for p in projections if p.rank], dim=1))
    return [next(parts) if p.rank else None for p in projections]


def _draw(x_TM: Tensor, projection: Projection) -> Tensor | None:
    """What dropout leaves of the input: the same numbers, from the same generator, as plain."""
    if projection.down is None or not projection.dropout:
        return None
    if x_TM.device.type == "cpu":
        mask = torch.empty(x_TM.shape, dtype=torch.bool, device=x_TM.device)
        return mask.bernoulli_(1.0 - projection.dropout)
    empty = x_TM.new_empty(x_TM.shape, dtype=projection.down.dtype)
    return torch.native_dropout(empty, projection.dropout, train=True)[1]


def _dropped(x: Tensor, mask_TM: Tensor | None, rows: slice, projection: Projection) -> Tensor:
    """dropout(x) of some rows."""
    if mask_TM is None:
        return x
    return (x * mask_TM[rows]).mul_(1.0 / (1.0 - projection.dropout))


def _accumulate(total: Tensor | None, gradient_TN: Tensor, weight_NM: Tensor) -> Tensor:
    if total is None:
        return gradient_TN @ weight_NM
    return total.addmm_(gradient_TN, weight_NM)


def _add_update(
    output_TN: Tensor, low_Tr: Tensor, projection: Projection, product_TN: Tensor | None
) -> None:
    """output += scale B low; with a gain g, output += (g - 1) W x + g scale B low."""
    up, gain = projection.up, projection.gain
    assert up is not None
    if gain is None and up.dtype == output_TN.dtype:
        output_TN.addmm_(low_Tr, up.t(), alpha=projection.scale)
        return
    if gain is None and add_product(output_TN, low_Tr, up.t(), scale=projection.scale):
        return
    for rows in rows_of(output_TN, up.dtype):
        update = (low_Tr[rows] * projection.scale) @ up.t()
        if gain is not None and product_TN is not None:
            update = (update * gain).addcmul_(product_TN[rows].to(gain.dtype), gain - 1)
        output_TN[rows].add_(update.to(output_TN.dtype))


def _update_back(
    gradient_TN: Tensor,
    low_Tr: Tensor,
    into_Tr: Tensor,
    projection: Projection,
    product_TN: Tensor | None,
) -> tuple[Tensor, Gradients]:
    """Gradients of W x + b, of B and of the gain; that of A dropout(x) goes `into_Tr`."""
    up, scale, gain = projection.up, projection.scale, projection.gain
    assert up is not None
    into_up = torch.zeros_like(up) if up.requires_grad else None
    into_gain = None if gain is None else torch.zeros_like(gain)
    through_TN = gradient_TN if gain is None else torch.empty_like(gradient_TN)
    for rows in rows_of(gradient_TN, up.dtype):
        wide = gradient_TN[rows].to(up.dtype)
        low = low_Tr[rows] * scale
        if gain is not None and into_gain is not None and product_TN is not None:
            both = (low @ up.t()).to(gain.dtype).add_(product_TN[rows])
            into_gain += both.mul_(wide).sum(dim=0)
            gained = wide * gain
            through_TN[rows] = gained.to(gradient_TN.dtype)
            wide = gained.to(up.dtype)
        if into_up is not None:
            into_up.addmm_(wide.t(), low)
        into_Tr[rows] = (wide @ up).mul_(scale)
    return through_TN, Gradients(up=into_up, gain=into_gain)


def _enter_back(
    into_TR: Tensor,
    x_TM: Tensor | None,
    projections: Sequence[Projection],
    masks: Sequence[Tensor | None],
    gradient_TM: Tensor | None,
) -> list[Tensor | None]:
    """Gradients of each A; what flows through A to the input is added to `gradient_TM`."""
    if all(mask is None for mask in masks):
        return _shared_back(into_TR, x_TM, projections, gradient_TM)
    parts = split(into_TR, projections)
    return [
        None if part_Tr is None else _dropped_back(part_Tr, x_TM, projection, mask, gradient_TM)
        for projection, mask, part_Tr in zip(projections, masks, parts, strict=True)
    ]


def _shared_back(
    into_TR: Tensor,
    x_TM: Tensor | None,
    projections: Sequence[Projection],
    gradient_TM: Tensor | None,
) -> list[Tensor | None]:
    """`_enter_back` where all adapters read the same input: one product each way."""
    downs = [p.down for p in projections if p.down is not None]
    down_RM = torch.cat(downs) if len(downs) > 1 else downs[0]
    found_RM = None
    if x_TM is not None and any(down.requires_grad for down in downs):
        found_RM = torch.zeros_like(down_RM)
        for rows in rows_of(x_TM, into_TR.dtype):
            found_RM.addmm_(into_TR[rows].t(), x_TM[rows].to(into_TR.dtype))
    if gradient_TM is not None and not add_product(gradient_TM, into_TR, down_RM, scale=1.0):
        for rows in rows_of(gradient_TM, into_TR.dtype):
            gradient_TM[rows].add_((into_TR[rows] @ down_RM).to(gradient_TM.dtype))
    if found_RM is None:
        return [None] * len(projections)
    parts = iter(found_RM.split([down.shape[0] for down in downs]))
    return [None if p.down is None else next(parts) for p in projections]


def _dropped_back(
    into_Tr: Tensor,
    x_TM: Tensor | None,
    projection: Projection,
    mask_TM: Tensor | None,
    gradient_TM: Tensor | None,
) -> Tensor | None:
    """`_enter_back` of one adapter that reads a dropped input of its own."""
    down, found = projection.down, None
    assert down is not None
    if x_TM is not None and down.requires_grad:
        found = torch.zeros_like(down)
        for rows in rows_of(x_TM, down.dtype):
            dropped = _dropped(x_TM[rows].to(down.dtype), mask_TM, rows, projection)
            found.addmm_(into_Tr[rows].t(), dropped)
    if gradient_TM is not None:
        for rows in rows_of(gradient_TM, down.dtype):
            through = _dropped(into_Tr[rows] @ down, mask_TM, rows, projection)
            gradient_TM[rows].add_(through.to(gradient_TM.dtype))
    return found
