"""Rows of a 4-bit weight, a few at a time, equal to the bit to those of the whole weight.

The constants of all blocks (one for 64 elements) come first: double quantisation looks at all.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from qtune.ops.nf4 import NESTED_BLOCK_SIZE, dequantize, library

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_TINY = 1e-38  # as the kernels have it, for the last block when it is not whole


def rows_at_once(shape: Sequence[int], block_size: int) -> int:
    """The fewest rows that are unfolded by themselves as in the whole: one, if blocks end with
    rows, else all, for bitsandbytes' CPU kernel then takes other constants than its GPU ones."""
    return shape[0] if prod(shape[1:]) % block_size else 1


def maxima(values: Tensor, block_size: int) -> Tensor:
    """fp32 constants of the blocks of dense values, which begin where a block does."""
    flat = values.reshape(-1).float().abs()
    rest = -flat.numel() % block_size
    if not rest:
        return flat.view(-1, block_size).amax(dim=1)
    found = functional.pad(flat, (0, rest)).view(-1, block_size).amax(dim=1)
    found[-1].clamp_(min=_TINY)
    return found


def settled(absmax: Tensor, *, double_quant: bool) -> Tensor:
    """The constants that a weight computes with: through double quantisation and back, if it is."""
    if not double_quant:
        return absmax
    kernels = library().functional
    offset = absmax.mean()
    codes, nested = kernels.quantize_blockwise(absmax - offset, blocksize=NESTED_BLOCK_SIZE)
    return kernels.dequantize_blockwise(codes, nested) + offset  # type: ignore[no-any-return]


def state_of(constants: Mapping[str, Tensor]) -> Any:
    """bitsandbytes' state of a weight that is stored packed, of its constants by their names."""
    return library().functional.QuantState.from_dict(dict(constants), torch.device("cpu"))


def constants_of(state: Any) -> Tensor:
    """fp32 constants of all blocks of a weight."""
    if not state.nested:
        return state.absmax.float()  # type: ignore[no-any-return]
    found: Tensor = library().functional.dequantize_blockwise(state.absmax, state.state2)
    offset: Tensor = state.offset
    return (found + offset).float()


def unfold(
    codes: Tensor,
    absmax: Tensor,
    shape: Sequence[int],
    *,
    quant_type: str,
    block_size: int,
    dtype: torch.dtype,
) -> Tensor:
    """The dense rows of packed codes (uint8, two elements each) and their blocks' constants."""
    state = library().functional.QuantState(
        absmax=absmax,
        shape=torch.Size(shape),
        blocksize=block_size,
        quant_type=quant_type,
        dtype=dtype,
    )
    return dequantize(codes, state)
