"""Products with a sparse matrix S [n, m], and where a weight's gradient is largest.

S is made dense a block of rows at a time, in the inputs' dtype: one more product of the base's
size, and never a dense matrix or gradient as a whole. Its places are fixed; the values learn.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ROWS = 2048


@dataclass(frozen=True)
class Places:
    """Which entries of a matrix [n, m] are not zero: a position in its block's flattened rows
    each, int32 [k], and where in them each block begins."""

    inside: Tensor
    bounds: tuple[int, ...]
    outputs: int
    inputs: int

    @classmethod
    def of_flat(cls, flat: Tensor, *, outputs: int, inputs: int) -> Places:
        """From positions in the flattened matrix, int64 in ascending order."""
        size = ROWS * inputs
        starts = torch.arange(0, outputs * inputs, size, device=flat.device)
        bounds = (*torch.searchsorted(flat, starts).tolist(), len(flat))
        return cls((flat % size).int(), bounds, outputs, inputs)

    def flat(self) -> Tensor:
        """Positions in the flattened matrix, int64."""
        size = ROWS * self.inputs
        places = self.inside.long()
        for number, first in enumerate(self.bounds[1:-1], start=1):
            last = self.bounds[number + 1]
            places[first:last] += number * size
        return places

    def blocks(self) -> Iterator[tuple[slice, slice, Tensor]]:
        """(rows, places, positions in the flattened rows) of each block of rows."""
        for number, (first, last) in enumerate(pairwise(self.bounds)):
            rows = slice(number * ROWS, min((number + 1) * ROWS, self.outputs))
            yield rows, slice(first, last), self.inside[first:last]

    def dense(self, values: Tensor, dtype: torch.dtype) -> Iterator[tuple[slice, Tensor]]:
        """Rows and their dense block [rows, m] of the matrix with these values."""
        for rows, places, flat in self.blocks():
            block = values.new_zeros((rows.stop - rows.start) * self.inputs, dtype=dtype)
            block[flat] = values[places].to(dtype)
            yield rows, block.view(-1, self.inputs)


def sparse_product(x: Tensor, values: Tensor, places: Places) -> Tensor:
    """x S^T: [..., m] -> [..., n] in the dtype of x, with the gradient of values [k]."""
    product: Tensor = _Product.apply(x, values, places)  # type: ignore[no-untyped-call]
    return product


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, values: Tensor, places: Places) -> Tensor:
        ctx.save_for_backward(x, values)
        ctx.places = places
        return torch.cat([x @ block.t() for _, block in places.dense(values, x.dtype)], dim=-1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, values = ctx.saved_tensors
        of_x = of_values = None
        if ctx.needs_input_grad[0]:
            of_x = torch.zeros_like(x)
            for rows, block in ctx.places.dense(values, x.dtype):
                of_x += grad[..., rows] @ block
        if ctx.needs_input_grad[1]:
            of_values = torch.empty_like(values)
            blocks = zip(ctx.places.blocks(), gradient_rows(x, grad), strict=True)
            for (_, places, flat), (_, block) in blocks:
                of_values[places] = block.reshape(-1)[flat].to(values.dtype)
        return of_x, of_values, None


def gradient_rows(x: Tensor, grad: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """The gradient dY^T X of a linear's weight, a block of rows at a time; x and dY [..., ]."""
    x, grad = x.reshape(-1, x.shape[-1]), grad.reshape(-1, grad.shape[-1])
    for start in range(0, grad.shape[1], ROWS):
        rows = slice(start, min(start + ROWS, grad.shape[1]))
        yield rows, grad[:, rows].t() @ x


def largest(rows: Iterable[tuple[slice, Tensor]], count: int) -> Tensor:
    """Flat positions, ascending, of the `count` entries of largest size of a matrix in blocks."""
    sizes: list[Tensor] = []
    found: list[Tensor] = []
    for part, block in rows:
        flat = block.float().abs().flatten()
        top = flat.topk(min(count, len(flat)))
        sizes = [torch.cat([*sizes, top.values])]
        found = [torch.cat([*found, top.indices + part.start * block.shape[1]])]
        if len(sizes[0]) > count:
            best = sizes[0].topk(count).indices
            sizes, found = [sizes[0][best]], [found[0][best]]
    return found[0].sort().values


def watched(output: Tensor, x: Tensor, take: Any) -> Tensor:
    """`output` itself; its backward pass calls take(x, gradient of output), under recomputation
    too, where a hook would hold x."""
    seen: Tensor = _Watch.apply(output, x, take)  # type: ignore[no-untyped-call]
    return seen


class _Watch(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, output: Tensor, x: Tensor, take: Any) -> Tensor:
        ctx.save_for_backward(x)
        ctx.take = take
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        ctx.take(*ctx.saved_tensors, grad)
        return grad, None, None
