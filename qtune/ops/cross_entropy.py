"""Cross-entropy through the head, a chunk of positions at a time.

Legend: S supervised positions, H hidden size, V vocabulary size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


def chunked_cross_entropy(
    hidden_SH: Tensor,
    target_S: Tensor,
    head: Callable[[Tensor], Tensor],
    *,
    chunk_size: int,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Sum of -log softmax(head(hidden))[target] in nats, an fp32 scalar.

    At most chunk_size x V logits exist at a time: with gradients each chunk's logits are computed
    again in the backward pass. `head` maps [C, H] to [C, V] and may hold trainable parameters.
    """
    total = hidden_SH.new_zeros((), dtype=torch.float32)
    for hidden_CH, target_C in zip(
        hidden_SH.split(chunk_size), target_S.split(chunk_size), strict=True
    ):
        if torch.is_grad_enabled():
            part = checkpoint(_sum, hidden_CH, target_C, head, label_smoothing, use_reentrant=False)
        else:
            part = _sum(hidden_CH, target_C, head, label_smoothing)
        total = total + part
    return total


def row_cross_entropy(
    hidden_SH: Tensor,
    target_S: Tensor,
    head: Callable[[Tensor], Tensor],
    *,
    chunk_size: int,
) -> Tensor:
    """-log softmax(head(hidden))[target] of each position, fp32 [S]; without gradients."""
    parts = [
        functional.cross_entropy(head(hidden_CH).float(), target_C, reduction="none")
        for hidden_CH, target_C in zip(
            hidden_SH.split(chunk_size), target_S.split(chunk_size), strict=True
        )
    ]
    return torch.cat(parts) if parts else hidden_SH.new_zeros((0,), dtype=torch.float32)


def _sum(
    hidden_CH: Tensor,
    target_C: Tensor,
    head: Callable[[Tensor], Tensor],
    label_smoothing: float,
) -> Tensor:
    # fp32 before the softmax: a bf16 log-sum-exp over a large vocabulary loses the third digit
    return functional.cross_entropy(
        head(hidden_CH).float(), target_C, reduction="sum", label_smoothing=label_smoothing
    )
