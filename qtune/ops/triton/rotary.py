"""Queries and keys turned by their positions, both in one launch, a program a token.

Halves of the first R columns are pairs: (a, b) becomes (a cos - b sin, b cos + a sin) with the
cosine and sine of either half's own column; columns from R on stay. The gradient turns back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from qtune.ops.triton.arithmetic import rounded
from qtune.ops.triton.jit import jit, launch, power_of_two, tl, warps

if TYPE_CHECKING:
    from torch import Tensor


@jit
def _turn(
    from_ptr: tl.tensor,
    to_ptr: tl.tensor,
    strides: tl.tensor,
    cosines: tl.tensor,
    sines: tl.tensor,
    heads: tl.tensor,
    HALF: tl.constexpr,
    REST: tl.constexpr,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    BACK: tl.constexpr,
) -> None:
    """All heads of one token; `strides`: from head to head in what is read, and in what is made."""
    head = tl.arange(0, HEADS)[:, None]
    column = tl.arange(0, WIDTH)[None, :]
    inside = (head < heads) & (column < HALF)
    head_stride, size = strides
    first_cos, second_cos = cosines
    first_sin, second_sin = sines
    at = from_ptr + head * head_stride + column
    first = tl.load(at, mask=inside, other=0.0).to(tl.float32)
    second = tl.load(at + HALF, mask=inside, other=0.0).to(tl.float32)
    if BACK:
        left = first * first_cos + second * second_sin
        right = second * second_cos - first * first_sin
    else:
        left = first * first_cos - second * first_sin
        right = second * second_cos + first * second_sin
    dtype = to_ptr.dtype.element_ty
    to = to_ptr + head * size + column
    tl.store(to, rounded(left, dtype), mask=inside)
    tl.store(to + HALF, rounded(right, dtype), mask=inside)
    if REST > 0:
        column = 2 * HALF + tl.arange(0, REST)[None, :]
        inside = (head < heads) & (column < size)
        kept = tl.load(from_ptr + head * head_stride + column, mask=inside, other=0.0)
        tl.store(to_ptr + head * size + column, kept, mask=inside)


@jit
def _rotate(
    query_ptr: tl.tensor,
    key_ptr: tl.tensor,
    query_to_ptr: tl.tensor,
    key_to_ptr: tl.tensor,
    cos_ptr: tl.tensor,
    sin_ptr: tl.tensor,
    tokens: tl.tensor,
    size: tl.tensor,
    query_heads: tl.tensor,
    key_heads: tl.tensor,
    query_batch: tl.tensor,
    query_head: tl.tensor,
    query_token: tl.tensor,
    key_batch: tl.tensor,
    key_head: tl.tensor,
    key_token: tl.tensor,
    angle_batch: tl.tensor,
    angle_token: tl.tensor,
    HALF: tl.constexpr,
    REST: tl.constexpr,
    QUERY_HEADS: tl.constexpr,
    KEY_HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    BACK: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    batch, token = row // tokens, row % tokens
    column = tl.arange(0, WIDTH)[None, :]
    at = batch * angle_batch + token * angle_token + column
    inside = column < HALF
    first_cos = tl.load(cos_ptr + at, mask=inside, other=0.0).to(tl.float32)
    second_cos = tl.load(cos_ptr + at + HALF, mask=inside, other=0.0).to(tl.float32)
    first_sin = tl.load(sin_ptr + at, mask=inside, other=0.0).to(tl.float32)
    second_sin = tl.load(sin_ptr + at + HALF, mask=inside, other=0.0).to(tl.float32)
    cosines, sines = (first_cos, second_cos), (first_sin, second_sin)
    query_at = query_ptr + batch * query_batch + token * query_token
    query_to = query_to_ptr + row * query_heads * size
    strides = (query_head, size)
    _turn(
        query_at,
        query_to,
        strides,
        cosines,
        sines,
        query_heads,
        HALF,
        REST,
        QUERY_HEADS,
        WIDTH,
        BACK,
    )
    key_at = key_ptr + batch * key_batch + token * key_token
    key_to = key_to_ptr + row * key_heads * size
    strides = (key_head, size)
    _turn(key_at, key_to, strides, cosines, sines, key_heads, HALF, REST, KEY_HEADS, WIDTH, BACK)


def rotate(
    query: Tensor, key: Tensor, cos: Tensor, sin: Tensor, *, back: bool
) -> tuple[Tensor, Tensor]:
    """Turned [B, H, T, D] and [B, K, T, D], or with `back` their gradients turned back.

    cos and sin [B or 1, T, R] with R <= D even. What is made lies as [B, T, heads, D].
    """
    query, key = (each if each.stride(-1) == 1 else each.contiguous() for each in (query, key))
    batch, _, tokens, size = query.shape
    cos, sin = cos.contiguous(), sin.contiguous()
    half = cos.shape[-1] // 2
    made = [
        torch.empty(
            (batch, tokens, each.shape[1], size), dtype=each.dtype, device=each.device
        ).transpose(1, 2)
        for each in (query, key)
    ]
    wide, rest = power_of_two(half), size - 2 * half
    heads = [power_of_two(each.shape[1]) for each in (query, key)]
    launch(
        _rotate,
        (batch * tokens,),
        query,
        key,
        *made,
        cos,
        sin,
        tokens,
        size,
        query.shape[1],
        key.shape[1],
        *query.stride()[:3],
        *key.stride()[:3],
        0 if cos.shape[0] == 1 else cos.stride(0),
        cos.stride(1),
        HALF=half,
        REST=power_of_two(rest) if rest else 0,
        QUERY_HEADS=heads[0],
        KEY_HEADS=heads[1],
        WIDTH=wide,
        BACK=back,
        num_warps=min(8, warps(heads[0] * wide)),
    )
    return made[0], made[1]
