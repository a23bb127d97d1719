"""Which weights of a linear layer may become zero, and SparseGPT's update of those that stay.

Weights are [out, in] in float32 or float64. Sources: magnitude (Han et al. 2015), Wanda (Sun et
al. 2023: |W_ij| times the norm of input feature j, compared within a row), SparseGPT (Frantar &
Alistarh 2023: columns from left to right, each error made good by the columns right of it).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

DAMPING = 0.01  # of the mean diagonal, added to it
BLOCK = 128  # columns whose errors reach the rest of the matrix in one product


@dataclass(frozen=True)
class Share:
    """So large a part of the weights becomes zero, wherever they lie."""

    value: float

    def count(self, weights: int) -> int:
        """How many of so many weights become zero."""
        return int(self.value * weights + 1e-9)  # 0.3 * 10 is a little under 3


@dataclass(frozen=True)
class Pattern:
    """`keep` of each `of` consecutive inputs stay, in every row (2:4 is what GPUs know)."""

    keep: int
    of: int

    @property
    def value(self) -> float:
        """The part of the weights that becomes zero."""
        return 1 - self.keep / self.of


Sparsity = Share | Pattern


def lowest(scores: Tensor, count: int) -> Tensor:
    """True at exactly `count` of the lowest scores of each row, at the first ones among equals."""
    if count == 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    bound = scores.kthvalue(count, dim=1, keepdim=True).values
    below, equal = scores < bound, scores == bound
    missing = count - below.sum(1, keepdim=True)
    return below | (equal & (equal.cumsum(1) <= missing))


def by_pattern(scores: Tensor, pattern: Pattern) -> Tensor:
    """True at the lowest scores of each group of consecutive columns, as the pattern asks."""
    groups = scores.reshape(-1, pattern.of)
    return lowest(groups, pattern.of - pattern.keep).reshape(scores.shape)


def magnitude(weight: Tensor, sparsity: Sparsity) -> Tensor:
    """The weight without its smallest values, compared over the whole matrix or in groups."""
    scores = weight.abs()
    if isinstance(sparsity, Pattern):
        return weight.masked_fill(by_pattern(scores, sparsity), 0)
    mask = lowest(scores.reshape(1, -1), sparsity.count(weight.numel()))
    return weight.masked_fill(mask.reshape(weight.shape), 0)


def wanda(weight: Tensor, feature_norms: Tensor, sparsity: Sparsity) -> Tensor:
    """The weight without the values that move the output least, compared row by row.

    `feature_norms` [in] are the norms of the inputs' features over all calibration tokens.
    """
    scores = weight.abs() * feature_norms
    if isinstance(sparsity, Pattern):
        return weight.masked_fill(by_pattern(scores, sparsity), 0)
    return weight.masked_fill(lowest(scores, sparsity.count(weight.shape[1])), 0)


def sparse_gpt(weight: Tensor, gram: Tensor, sparsity: Sparsity, *, block: int = BLOCK) -> Tensor:
    """The pruned weight with its other values moved so that the outputs change least.

    `gram` [in, in] is X^T X of the calibration inputs, in any scale. Features that are never seen
    get zeros. Within a block of columns the lowest w^2 / U_jj^2 go, U the upper Cholesky factor of
    the inverse.
    """
    step = block if isinstance(sparsity, Share) else max(1, block // sparsity.of) * sparsity.of
    unseen = gram.diagonal() == 0
    weight = weight.masked_fill(unseen, 0)
    factor = _factor(gram, unseen)
    columns = weight.shape[1]
    for start in range(0, columns, step):
        end = min(start + step, columns)
        part = weight[:, start:end]
        if isinstance(sparsity, Share):
            rows = weight.shape[0]
            count = sparsity.count(rows * end) - sparsity.count(rows * start)
            scores = (part / factor.diagonal()[start:end]).square()
            mask = lowest(scores.reshape(1, -1), count).reshape(part.shape)
            errors = _columns(part, factor[start:end, start:end], mask)
        else:
            errors = _groups(part, factor[start:end, start:end], sparsity)
        weight[:, end:] -= errors @ factor[start:end, end:]
    return weight


def _groups(part: Tensor, factor: Tensor, pattern: Pattern) -> Tensor:
    """Prune a block of columns in place, each group chosen when its turn comes; the errors."""
    errors = torch.zeros_like(part)
    for first in range(0, part.shape[1], pattern.of):
        last = first + pattern.of
        scores = (part[:, first:last] / factor.diagonal()[first:last]).square()
        mask = by_pattern(scores, pattern)
        own = _columns(part[:, first:last], factor[first:last, first:last], mask)
        part[:, last:] -= own @ factor[first:last, last:]
        errors[:, first:last] = own
    return errors


def _columns(part: Tensor, factor: Tensor, mask: Tensor) -> Tensor:
    """Zero the masked values of some columns in place, from left to right; their errors, each
    already made good by the columns right of it."""
    errors = torch.zeros_like(part)
    for column in range(part.shape[1]):
        kept = part[:, column].masked_fill(mask[:, column], 0)
        error = (part[:, column] - kept) / factor[column, column]
        part[:, column:] -= torch.outer(error, factor[column, column:])
        part[:, column] = kept
        errors[:, column] = error
    return errors


def _factor(gram: Tensor, unseen: Tensor) -> Tensor:
    """Upper Cholesky factor of the inverse of the damped Gram matrix.

    Damping grows where the matrix is still not positive definite in this precision.
    """
    hessian = gram.clone()
    hessian.diagonal()[unseen] = 1
    damping = DAMPING * hessian.diagonal().mean()
    for _ in range(8):
        hessian.diagonal().add_(damping)
        lower, failed = torch.linalg.cholesky_ex(hessian)
        if not failed:
            upper, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
            if not failed:
                return upper  # type: ignore[no-any-return]
        damping = 10 * damping
    raise ArithmeticError("the inputs' Gram matrix holds no finite numbers")
