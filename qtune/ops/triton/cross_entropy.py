"""Loss of each row of logits, and its gradient in the logits' place, a program a row.

What `qtune.ops.logits.Criterion` defines, in fp32 whatever the logits are in. Legend: C positions
of a chunk, V vocabulary size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from qtune.ops.triton.arithmetic import rounded, tanh
from qtune.ops.triton.jit import jit, launch, power_of_two, tl

if TYPE_CHECKING:
    from torch import Tensor

    from qtune.ops.logits import Criterion

BLOCK = 4096
"""Logits that a program looks at together."""


@jit
def _logit(raw: tl.tensor, scale: tl.tensor, cap: tl.tensor, CAPPED: tl.constexpr) -> tl.tensor:
    """What the softmax sees of a head's output."""
    logit = raw.to(tl.float32) * scale
    if CAPPED:
        logit = tanh(logit / cap) * cap
    return logit


@jit
def _rows(
    raw_ptr: tl.tensor,
    target_ptr: tl.tensor,
    loss_ptr: tl.tensor,
    stride: tl.tensor,
    factor: tl.tensor,
    scale: tl.tensor,
    cap: tl.tensor,
    smoothing: tl.tensor,
    z_loss: tl.tensor,
    CAPPED: tl.constexpr,
    GRADIENT: tl.constexpr,
    WIDTH: tl.constexpr,
    SIZE: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    line_ptr = raw_ptr + row * stride
    target = tl.load(target_ptr + row)
    wanted = _logit(tl.load(line_ptr + target), scale, cap, CAPPED)
    top = tl.full((), float("-inf"), tl.float32)
    share = tl.full((), 0.0, tl.float32)
    total = tl.full((), 0.0, tl.float32)
    for start in range(0, WIDTH, SIZE):
        at = start + tl.arange(0, SIZE)
        raw = tl.load(line_ptr + at, mask=at < WIDTH, other=0.0)
        logit = _logit(raw, scale, cap, CAPPED)
        total += tl.sum(logit, axis=0)  # what lies outside is zero, capped and scaled too
        logit = tl.where(at < WIDTH, logit, float("-inf"))
        higher = tl.maximum(top, tl.max(logit, axis=0))
        share = share * tl.exp(top - higher) + tl.sum(tl.exp(logit - higher), axis=0)
        top = higher
    log_sum = tl.log(share)
    loss = log_sum + (1.0 - smoothing) * (top - wanted) + smoothing * (top - total / WIDTH)
    whole = log_sum + top
    tl.store(loss_ptr + row, loss + z_loss * whole * whole)
    if GRADIENT:
        slope = factor / share * (1.0 + 2.0 * z_loss * whole)
        even = factor * smoothing / WIDTH
        hit = factor * (1.0 - smoothing)
        for start in range(0, WIDTH, SIZE):
            at = start + tl.arange(0, SIZE)
            raw = tl.load(line_ptr + at, mask=at < WIDTH, other=0.0)
            logit = _logit(raw, scale, cap, CAPPED)
            into = tl.exp(logit - top) * slope - even
            into = tl.where(at == target, into - hit, into)
            if CAPPED:
                bent = logit / cap
                into = into * (1.0 - bent * bent)
            into = rounded(into * scale, raw_ptr.dtype.element_ty)
            tl.store(line_ptr + at, into, mask=at < WIDTH)


def losses(raw_CV: Tensor, target_C: Tensor, criterion: Criterion) -> Tensor:
    """Each position's loss, fp32 [C]."""
    rows_CV = raw_CV if raw_CV.stride(-1) == 1 else raw_CV.contiguous()
    return _launch(rows_CV, target_C, criterion, factor=None)


def losses_and_gradient_in_place(
    raw_CV: Tensor, target_C: Tensor, criterion: Criterion, *, factor: float
) -> Tensor:
    """Each position's loss, fp32 [C]; the logits become `factor` times their gradient."""
    assert raw_CV.stride(-1) == 1
    losses_C = _launch(raw_CV, target_C, criterion, factor=factor)
    # whoever kept the logits for a backward pass is told that they are gone
    torch.autograd.graph.increment_version(raw_CV)
    return losses_C


def _launch(
    raw_CV: Tensor, target_C: Tensor, criterion: Criterion, *, factor: float | None
) -> Tensor:
    count, width = raw_CV.shape
    losses_C = torch.empty(count, dtype=torch.float32, device=raw_CV.device)
    launch(
        _rows,
        (count,),
        raw_CV,
        target_C.contiguous(),
        losses_C,
        raw_CV.stride(0),
        float(factor or 0.0),
        float(criterion.scale),
        float(criterion.softcap or 1.0),
        float(criterion.label_smoothing),
        float(criterion.z_loss),
        CAPPED=criterion.softcap is not None,
        GRADIENT=factor is not None,
        WIDTH=width,
        SIZE=min(BLOCK, power_of_two(width)),
        num_warps=8,
    )
    return losses_C
