"""4-bit and 8-bit weights: NF4, FP4 (Dettmers et al. 2023) and LLM.int8 (Dettmers et al. 2022).

Shapes: weight [out, in]; packed [out*in/2, 1] uint8 (two codes a byte); absmax one constant for
each block of 64 along the flattened weight. With double quantisation the constants are 8-bit too.
"""

from __future__ import annotations

import logging
from copy import copy
from functools import cache
from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from qtune.ops.element_wise import by_triton
from qtune.ops.spread import whole

if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCK_SIZE = 64
NESTED_BLOCK_SIZE = 256
# A CPU quantises with about 24 bytes of scratch an element. Pieces keep that small, and small
# enough for the heap to use it again: with 2**18 it grew by 25-55 MB between the packed weights.
PIECE = 2**16
LOOKED_AT = 2**20  # elements; what is only added up needs no scratch
_NOISY = ("bitsandbytes.backends.cpu.ops", "bitsandbytes.autograd._functions")


@cache
def library() -> Any:
    """The bitsandbytes package, imported on first use, without its log lines of every call."""
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.ERROR)
    import bitsandbytes

    return bitsandbytes


def quantize(
    weight: Tensor,
    *,
    quant_type: str,
    double_quant: bool,
    block_size: int = BLOCK_SIZE,
    dtype: torch.dtype | None = None,
) -> tuple[Tensor, Any]:
    """(packed codes, bitsandbytes QuantState) of a dense weight [out, in], on its device.

    Each piece is cast to `dtype` (default: the weight's) before it is quantised; the dense weight
    comes back in it. Equal to casting and quantising all at once, with a piece's memory.
    """
    functional = library().functional
    dtype = dtype or weight.dtype
    packed, absmax = quantize_pieces(weight.detach(), quant_type, block_size, dtype)
    offset = nested = None
    if double_quant:
        offset = absmax.mean()
        absmax, nested = functional.quantize_blockwise(absmax - offset, blocksize=NESTED_BLOCK_SIZE)
    state = functional.QuantState(
        absmax=absmax,
        shape=weight.shape,
        code=functional.get_4bit_type(quant_type, device=weight.device),
        blocksize=block_size,
        quant_type=quant_type,
        dtype=dtype,
        offset=offset,
        state2=nested,
    )
    return packed, state


def quantize_pieces(
    weight: Tensor, quant_type: str, block_size: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Packed codes [n/2, 1] and fp32 block constants, each piece cast to `dtype` before."""
    flat = weight.reshape(-1)
    count = flat.numel()
    packed = torch.empty(((count + 1) // 2, 1), dtype=torch.uint8, device=flat.device)
    absmax = torch.empty(-(-count // block_size), dtype=torch.float32, device=flat.device)
    for start, piece in _pieces(flat):
        codes, state = library().functional.quantize_4bit(
            piece.to(dtype),
            blocksize=block_size,
            compress_statistics=False,
            quant_type=quant_type,
        )
        packed[start // 2 : start // 2 + codes.numel()] = codes.reshape(-1, 1)
        absmax[start // block_size : start // block_size + state.absmax.numel()] = state.absmax
    return packed, absmax


def first_non_finite(weight: Tensor) -> int | None:
    """Flat position of the first NaN or infinity, looked for piece by piece."""
    for start, piece in _pieces(weight.detach().reshape(-1), LOOKED_AT):
        # A sum is much cheaper than isfinite, and not finite if any element is not.
        if not piece.sum(dtype=torch.float32).isfinite():
            broken = piece.isfinite().logical_not().nonzero()
            if len(broken):
                return start + int(broken[0])
    return None


def _pieces(flat: Tensor, size: int = PIECE) -> Iterator[tuple[int, Tensor]]:
    """Consecutive (start, piece) of a flat tensor; whole on a GPU, which needs no scratch."""
    size = size if flat.device.type == "cpu" else max(flat.numel(), 1)
    for start in range(0, flat.numel(), size):
        yield start, flat[start : start + size]


def dequantize(packed: Tensor, state: Any) -> Tensor:
    """The dense weight [out, in] in the dtype it had when it was quantised."""
    assert not getattr(state, "packing_format_for_cpu", False), "repacked for CPU inference"
    if by_triton("nf4", packed):
        from qtune.ops.triton import nf4 as kernels

        return kernels.unfold(packed, state)
    if is_misread(packed, state):
        shape = state.shape
        state = copy(state)
        rows = 1 if shape.numel() % state.blocksize else shape.numel() // state.blocksize
        state.shape = torch.Size([rows, shape.numel() // rows])
        return library().functional.dequantize_4bit(packed.view(-1, 1), state).view(shape)  # type: ignore[no-any-return]
    return library().functional.dequantize_4bit(packed.view(-1, 1), state)  # type: ignore[no-any-return]


def is_misread(packed: Tensor, state: Any) -> bool:
    """Whether bitsandbytes' CPU kernel (0.50.2) takes the constants of other blocks: it lets them
    begin anew with each row. [8, 96] comes out with an error of 0.36 instead of 0.09; in rows of
    whole blocks, or as one row, it is read rightly."""
    return (
        packed.device.type == "cpu"
        and len(state.shape) > 1
        and state.shape[-1] % state.blocksize != 0
    )


def quantize_int8(weight: Tensor, *, dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor]:
    """(int8 codes [out, in], fp32 row maxima [out]) of LLM.int8.

    Rows are cast to `dtype` (default: the weight's) and then to fp16, as LLM.int8 does.
    """
    dtype = dtype or weight.dtype
    codes = torch.empty(weight.shape, dtype=torch.int8, device=weight.device)
    maxima = torch.empty(weight.shape[0], dtype=torch.float32, device=weight.device)
    rows = max(1, PIECE // weight.shape[1]) if weight.device.type == "cpu" else weight.shape[0]
    for start in range(0, weight.shape[0], max(rows, 1)):
        piece = weight.detach()[start : start + rows].to(dtype).to(torch.float16)
        code, row_max, _ = library().functional.int8_vectorwise_quant(piece)
        codes[start : start + rows], maxima[start : start + rows] = code, row_max
    return codes, maxima


def dequantize_int8(codes: Tensor, maxima: Tensor, *, dtype: torch.dtype) -> Tensor:
    """codes * maxima / 127, rounded once, as the layer's own matrix product sees it."""
    return codes.to(dtype).mul_(maxima.unsqueeze(1).mul(1.0 / 127.0))


def is_quantized(module: nn.Module) -> bool:
    """Whether a module is a 4-bit or 8-bit linear of bitsandbytes."""
    return bits_of(module) < 16


def bits_of(module: nn.Module) -> int:
    """4, 8 or 16: how a module's weight is held."""
    layers = library().nn
    if isinstance(module, layers.Linear4bit):
        return 4
    return 8 if isinstance(module, layers.Linear8bitLt) else 16


def weight_of(module: nn.Module) -> Tensor:
    """The dense weight [out, in] of a linear layer of any kind, detached; do not write to it.

    In the dtype it was quantised in; fp32 for 8-bit layers, which do not keep theirs.
    """
    bits = bits_of(module)
    if bits == 4:
        return dequantize(*packed_of(module))
    if bits == 8:
        return dequantize_int8(*int8_parts(module), dtype=torch.float32)
    dense = module.weight
    assert isinstance(dense, Tensor)
    dense = dense.detach()
    return dense.t() if is_transposed(module) else dense


def packed_of(module: Any) -> tuple[Tensor, Any]:
    """(packed codes, bitsandbytes' state) of a 4-bit layer; codes in shards are gathered."""
    weight, state = module.weight, state_of(module)
    if hasattr(weight, "quant_state"):
        return weight.data, state
    return from_storage(whole(weight).detach(), state), state


def state_of(module: Any) -> Any:
    """The constants of a 4-bit layer: its weight's, or its own where the weight comes and goes."""
    state = getattr(module.weight, "quant_state", None)
    return module.quant_state if state is None else state


def to_storage(packed: Tensor) -> Tensor:
    """The bytes of packed codes as bfloat16 [n, 1], for what moves floats only; an odd one more.

    Never to be computed with: some of the patterns are NaNs.
    """
    flat = packed.reshape(-1).view(torch.uint8)
    if flat.numel() % 2:
        flat = torch.cat([flat, flat.new_zeros(1)])
    return flat.view(torch.bfloat16).view(-1, 1)


def from_storage(stored: Tensor, state: Any) -> Tensor:
    """The packed codes [n, 1] again, in the same memory."""
    count = (prod(state.shape) + 1) // 2
    return stored.view(-1).view(torch.uint8)[:count].view(-1, 1)


def int8_parts(module: Any) -> tuple[Tensor, Tensor]:
    """(codes, maxima) of an 8-bit layer, which keeps them elsewhere after its first forward."""
    holder = module.weight if module.weight.CB is not None else module.state
    return holder.CB, holder.SCB


def is_transposed(module: nn.Module) -> bool:
    """Whether the weight is stored [in, out], as GPT-2's Conv1D does."""
    return hasattr(module, "nx") and hasattr(module, "nf")
