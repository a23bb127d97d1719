"""Cross-entropy through a head, a chunk of positions at a time, with its own backward.

Legend: S supervised positions, C of a chunk, H hidden size, V vocabulary size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.autograd.function import once_differentiable

from qtune.ops.grid import rounded

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from qtune.ops.logits import Criterion

    Measure = Callable[..., tuple[Tensor, Tensor]]


def plain_cross_entropy(
    hidden_SH: Tensor, target_S: Tensor, head: nn.Module, criterion: Criterion
) -> Tensor:
    """Sum of `criterion` over head(hidden), an fp32 scalar: the definition, with all logits."""
    return criterion.losses(head(hidden_SH), target_S).sum()


def fused_cross_entropy(
    hidden_SH: Tensor,
    target_S: Tensor,
    head: nn.Module,
    criterion: Criterion,
    *,
    chunk_size: int,
    divisor: float = 1.0,
) -> Tensor:
    """`plain_cross_entropy` with at most chunk_size x V logits at a time, each computed once.

    With gradients, each chunk's are made right after its loss, so the backward pass only
    multiplies: what waits for it is [S, H], and a trained head's own gradients. `divisor`: what
    the caller divides the sum by; the gradients are made for it and rounded once.
    """
    if not torch.is_grad_enabled() or not (hidden_SH.requires_grad or _trained(head)):
        losses_S = row_cross_entropy(hidden_SH, target_S, head, criterion, chunk_size=chunk_size)
        return losses_S.sum()
    measure = criterion.losses_and_gradient
    return through_head(
        hidden_SH, (target_S,), head, measure, chunk_size=chunk_size, divisor=divisor
    )


def through_head(
    hidden_SH: Tensor,
    targets: tuple[Tensor, ...],
    head: nn.Module,
    measure: Measure,
    *,
    chunk_size: int,
    divisor: float = 1.0,
) -> Tensor:
    """Sum of `measure` over head(hidden), chunk by chunk, with gradients made on the way.

    `measure(raw_CV, *targets, factor=...)` gives the losses [C], fp32, and `factor` times the
    gradient of their sum, of a chunk of logits and the chunk's rows of each of `targets`.
    """
    work = _Work(head, measure, chunk_size, factor=1.0 / divisor)
    total: Tensor = _Fused.apply(work, targets, hidden_SH, *_trained(head))  # type: ignore[no-untyped-call]
    return total


def _trained(head: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in head.parameters() if parameter.requires_grad]


def row_cross_entropy(
    hidden_SH: Tensor,
    target_S: Tensor,
    head: nn.Module,
    criterion: Criterion,
    *,
    chunk_size: int,
) -> Tensor:
    """The loss of each position, fp32 [S]; without gradients."""
    parts = [
        _losses(hidden_CH, target_C, head, criterion, chunk_size)
        for hidden_CH, target_C in zip(
            hidden_SH.split(chunk_size), target_S.split(chunk_size), strict=True
        )
    ]
    return torch.cat(parts) if parts else hidden_SH.new_zeros((0,), dtype=torch.float32)


def _on_grid(chunk: list[Tensor], most: int) -> list[Tensor]:
    """On a CPU rows in one of few numbers, at most `most`: the last one several times."""
    rows = chunk[0].shape[0]
    wide = rounded(rows, most)
    if wide == rows or chunk[0].device.type != "cpu":
        return chunk
    places = torch.arange(wide).clamp_(max=rows - 1)
    return [tensor[places] for tensor in chunk]


def _losses(
    hidden_CH: Tensor, target_C: Tensor, head: nn.Module, criterion: Criterion, most: int
) -> Tensor:
    wide_CH, wide_C = _on_grid([hidden_CH, target_C], most)
    return criterion.losses_in_blocks(head(wide_CH), wide_C)[: hidden_CH.shape[0]]


@dataclass(frozen=True)
class _Work:
    """What the forward pass needs beside tensors."""

    head: nn.Module
    measure: Measure
    chunk_size: int
    factor: float


class _Fused(torch.autograd.Function):
    """The sum over all chunks; the gradients by the hidden states and by a trained head."""

    @staticmethod
    def forward(
        ctx: Any, work: _Work, targets: tuple[Tensor, ...], hidden_SH: Tensor, *trained: Tensor
    ) -> Tensor:
        hidden_SH = hidden_SH.detach()
        by_hidden_SH = torch.empty_like(hidden_SH)
        by_trained = [torch.zeros_like(parameter) for parameter in trained]
        total = hidden_SH.new_zeros((), dtype=torch.float32)
        whole = (hidden_SH, by_hidden_SH, *targets)
        chunks = (tensor.split(work.chunk_size) for tensor in whole)
        for hidden_CH, by_hidden_CH, *chunk in zip(*chunks, strict=True):
            own = hidden_CH.shape[0]
            wide_CH, *wide_chunk = _on_grid([hidden_CH, *chunk], work.chunk_size)
            leaf_CH = wide_CH.requires_grad_()
            with torch.enable_grad():
                raw_CV = work.head(leaf_CH)
            losses_C, by_raw_CV = work.measure(raw_CV.detach(), *wide_chunk, factor=work.factor)
            total += losses_C[:own].sum()
            by_raw_CV[own:] = 0.0
            found = torch.autograd.grad(raw_CV, [leaf_CH, *trained], by_raw_CV, allow_unused=True)
            by_hidden_CH.copy_(found[0][:own])
            for known, new in zip(by_trained, found[1:], strict=True):
                if new is not None:
                    known += new
        ctx.factor = work.factor
        ctx.save_for_backward(by_hidden_SH, *by_trained)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_total: Tensor) -> tuple[Tensor | None, ...]:
        # exactly one when the caller divides by the divisor it promised
        factor = by_total / ctx.factor
        return (None, None, *(known * factor for known in ctx.saved_tensors))
