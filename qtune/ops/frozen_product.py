"""x W' + b with a frozen 4-bit weight, unfolded for the forward and again for the backward pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional

from qtune.ops.nf4 import dequantize, is_misread, library

if TYPE_CHECKING:
    from torch import Tensor


def frozen_product(x: Tensor, codes: Tensor, state: Any, bias: Tensor | None) -> Tensor:
    """[..., M] -> [..., N] in x's dtype, of packed codes and bitsandbytes' state.

    bitsandbytes' own product, but for weights that it reads wrongly.
    """
    if is_misread(codes, state):
        return _Product.apply(x, codes, state, bias)  # type: ignore[no-any-return, no-untyped-call]
    return library().matmul_4bit(x, codes, bias=bias, quant_state=state)  # type: ignore[no-any-return]


class _Product(torch.autograd.Function):
    """Keeps nothing of x: the weight is frozen, and so is the bias."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, codes: Tensor, state: Any, bias: Tensor | None) -> Tensor:
        ctx.codes, ctx.state = codes, state
        return functional.linear(x, dequantize(codes, state).to(x.dtype), bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_output: Tensor) -> tuple[Tensor | None, ...]:
        weight_NM = dequantize(ctx.codes, ctx.state).to(by_output.dtype)
        return by_output @ weight_NM, None, None, None
