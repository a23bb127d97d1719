"""A 4-bit weight unfolded in one launch, its 8-bit block constants with it.

Each byte holds two codes, the first in its high half. value = code[nibble] * constant, rounded
once; with double quantisation constant = nested code[byte] * nested constant + offset. The result
is bitsandbytes' bit for bit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from qtune.ops.triton.arithmetic import rounded
from qtune.ops.triton.jit import jit, launch, tl

if TYPE_CHECKING:
    from torch import Tensor

TILE = 1024
"""Bytes of a program."""


@jit
def _unfold(
    packed_ptr: tl.tensor,
    made_ptr: tl.tensor,
    code_ptr: tl.tensor,
    constant_ptr: tl.tensor,
    nested_code_ptr: tl.tensor,
    nested_ptr: tl.tensor,
    offset_ptr: tl.tensor,
    count: tl.tensor,
    NESTED: tl.constexpr,
    NESTED_SIZE: tl.constexpr,
    BLOCKS: tl.constexpr,
    SIZE: tl.constexpr,
) -> None:
    blocks = tl.program_id(0).to(tl.int64) * BLOCKS + tl.arange(0, BLOCKS)
    known = blocks * SIZE < count
    half: tl.constexpr = SIZE // 2
    at = blocks[:, None] * half + tl.arange(0, half)[None, :]
    codes = tl.load(packed_ptr + at, mask=2 * at < count, other=0).to(tl.int32)
    if NESTED:
        byte = tl.load(constant_ptr + blocks, mask=known, other=0).to(tl.int32)
        nested = tl.load(nested_ptr + blocks // NESTED_SIZE, mask=known, other=0.0)
        constant = tl.load(nested_code_ptr + byte) * nested + tl.load(offset_ptr)
    else:
        constant = tl.load(constant_ptr + blocks, mask=known, other=0.0)
    first = tl.load(code_ptr + (codes >> 4)) * constant[:, None]
    second = tl.load(code_ptr + (codes & 15)) * constant[:, None]
    dtype = made_ptr.dtype.element_ty
    made = tl.interleave(rounded(first, dtype), rounded(second, dtype))
    to = blocks[:, None] * SIZE + tl.arange(0, SIZE)[None, :]
    tl.store(made_ptr + to, made, mask=to < count)


def unfold(packed: Tensor, state: Any) -> Tensor:
    """The dense weight of a bitsandbytes QuantState, in its shape and dtype."""
    constants, nested = state.absmax, state.state2  # a streamed weight comes when these are read
    made = torch.empty(tuple(state.shape), dtype=state.dtype, device=packed.device)
    count, size = made.numel(), state.blocksize
    blocks = max(1, 2 * TILE // size)
    tensors = [packed.view(torch.uint8), made, state.code, constants]
    if nested is None:
        tensors += [state.code] * 3
    else:
        tensors += [nested.code, nested.absmax, state.offset.to(packed.device)]
    launch(
        _unfold,
        (-(-count // (blocks * size)),),
        tensors[0],
        *tensors[1:],
        count,
        NESTED=nested is not None,
        NESTED_SIZE=1 if nested is None else nested.blocksize,
        BLOCKS=blocks,
        SIZE=size,
        num_warps=4,
    )
    return made
