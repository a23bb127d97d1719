"""Rotary positions (Su et al. 2021), halves of a head as pairs, as Llama and its kin turn them.

`plain` is the definition: columns c and c + R/2 of the first R are a pair, turned by the cosine
and sine of their token; columns from R on stay. `fused` keeps the angles alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from qtune.ops.element_wise import by_triton

if TYPE_CHECKING:
    from torch import Tensor


def plain(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """[B, H, T, D] and [B, K, T, D] by angles [B or 1, T, R], in the dtype given."""
    return _turned(query, cos, sin), _turned(key, cos, sin)


def fused(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """As `plain`, rounded once, in one node of the graph; the angles get no gradient.

    Only where `qtune.ops.element_wise` has chosen Triton: torch has no better form than `plain`.
    """
    if not by_triton("rotary", query):
        return plain(query, key, cos, sin)
    return _Rotary.apply(query, key, cos.detach(), sin.detach())  # type: ignore[no-any-return, no-untyped-call]


def _turned(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
    width = cos.shape[-1]
    turning, rest = states[..., :width], states[..., width:]
    first, second = turning.chunk(2, dim=-1)
    turned = turning * cos + torch.cat([-second, first], dim=-1) * sin
    return torch.cat([turned, rest], dim=-1) if rest.shape[-1] else turned


class _Rotary(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, cos: Tensor, sin: Tensor
    ) -> tuple[Tensor, Tensor]:
        from qtune.ops.triton import rotary as kernels

        ctx.save_for_backward(cos, sin)
        return kernels.rotate(query, key, cos, sin, back=False)

    @staticmethod
    def backward(ctx: Any, by_query: Tensor, by_key: Tensor) -> tuple[Tensor | None, ...]:
        from qtune.ops.triton import rotary as kernels

        into = kernels.rotate(by_query, by_key, *ctx.saved_tensors, back=True)
        return *into, None, None
