"""RMSNorm by rows: forward, its output again from 1/rms, and the gradient of its input.

Rows [N, M] with a stride of one inside a row; everything in fp32 but for the rounding to the dtype
of x before the weight, as `qtune.ops.rms_norm` defines it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from qtune.ops.triton.arithmetic import rounded
from qtune.ops.triton.jit import jit, launch, power_of_two, tl, warps

if TYPE_CHECKING:
    from torch import Tensor

TILE = 2048
"""Elements of a program; a longer row is one program, several shorter ones share one."""


@jit
def _forward(
    x_ptr: tl.tensor,
    weight_ptr: tl.tensor,
    inverse_ptr: tl.tensor,
    made_ptr: tl.tensor,
    count: tl.tensor,
    width: tl.tensor,
    stride: tl.tensor,
    eps: tl.tensor,
    KNOWN: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
) -> None:
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    columns = tl.arange(0, WIDTH)
    inside = (rows < count)[:, None] & (columns < width)[None, :]
    x = tl.load(x_ptr + rows[:, None] * stride + columns[None, :], mask=inside, other=0.0)
    x = x.to(tl.float32)
    weight = tl.load(weight_ptr + columns, mask=columns < width, other=0.0).to(tl.float32)
    if KNOWN:
        inverse = tl.load(inverse_ptr + rows, mask=rows < count, other=0.0)
    else:
        inverse = tl.rsqrt(tl.sum(x * x, axis=1) / width + eps)
        tl.store(inverse_ptr + rows, inverse, mask=rows < count)
    dtype = made_ptr.dtype.element_ty
    normal = rounded(x * inverse[:, None], dtype).to(tl.float32)
    made = rounded(normal * weight[None, :], dtype)
    tl.store(made_ptr + rows[:, None] * width + columns[None, :], made, mask=inside)


@jit
def _backward(
    gradient_ptr: tl.tensor,
    x_ptr: tl.tensor,
    weight_ptr: tl.tensor,
    inverse_ptr: tl.tensor,
    into_ptr: tl.tensor,
    count: tl.tensor,
    width: tl.tensor,
    gradient_stride: tl.tensor,
    stride: tl.tensor,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
) -> None:
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    columns = tl.arange(0, WIDTH)
    inside = (rows < count)[:, None] & (columns < width)[None, :]
    at = rows[:, None] * gradient_stride + columns[None, :]
    gradient = tl.load(gradient_ptr + at, mask=inside, other=0.0).to(tl.float32)
    x = tl.load(x_ptr + rows[:, None] * stride + columns[None, :], mask=inside, other=0.0)
    weight = tl.load(weight_ptr + columns, mask=columns < width, other=0.0).to(tl.float32)
    inverse = tl.load(inverse_ptr + rows, mask=rows < count, other=0.0)[:, None]
    wide = gradient * weight[None, :]
    normal = x.to(tl.float32) * inverse
    along = tl.sum(wide * normal, axis=1) / width
    into = (wide - normal * along[:, None]) * inverse
    into = rounded(into, into_ptr.dtype.element_ty)
    tl.store(into_ptr + rows[:, None] * width + columns[None, :], into, mask=inside)


def forward(x_NM: Tensor, weight_M: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """(the normalised rows [N, M], 1/rms of each in fp32 [N, 1])."""
    inverse_N1 = torch.empty(x_NM.shape[0], 1, dtype=torch.float32, device=x_NM.device)
    return _normal(x_NM, weight_M, inverse_N1, eps=eps), inverse_N1


def again(x_NM: Tensor, weight_M: Tensor, inverse_N1: Tensor) -> Tensor:
    """The normalised rows as `forward` made them, bit for bit."""
    return _normal(x_NM, weight_M, inverse_N1, eps=None)


def backward(gradient_NM: Tensor, x_NM: Tensor, weight_M: Tensor, inverse_N1: Tensor) -> Tensor:
    """The gradient of x [N, M], in its dtype."""
    gradient_NM, x_NM = _rows(gradient_NM), _rows(x_NM)
    into_NM = torch.empty(x_NM.shape, dtype=x_NM.dtype, device=x_NM.device)
    count, width = x_NM.shape
    grid, fixed = _tiles(count, width)
    tensors = (gradient_NM, x_NM, weight_M.contiguous(), inverse_N1, into_NM)
    strides = (gradient_NM.stride(0), x_NM.stride(0))
    launch(_backward, grid, *tensors, count, width, *strides, **fixed)
    return into_NM


def _normal(x_NM: Tensor, weight_M: Tensor, inverse_N1: Tensor, *, eps: float | None) -> Tensor:
    x_NM = _rows(x_NM)
    made_NM = torch.empty(x_NM.shape, dtype=x_NM.dtype, device=x_NM.device)
    count, width = x_NM.shape
    grid, fixed = _tiles(count, width)
    tensors = (x_NM, weight_M.contiguous(), inverse_N1, made_NM)
    sizes = (count, width, x_NM.stride(0), 0.0 if eps is None else eps)
    launch(_forward, grid, *tensors, *sizes, KNOWN=eps is None, **fixed)
    return made_NM


def _rows(tensor_NM: Tensor) -> Tensor:
    return tensor_NM if tensor_NM.stride(-1) == 1 else tensor_NM.contiguous()


def _tiles(count: int, width: int) -> tuple[tuple[int], dict[str, Any]]:
    wide = power_of_two(width)
    rows = max(1, TILE // wide)
    return (-(-count // rows),), {"ROWS": rows, "WIDTH": wide, "num_warps": warps(rows * wide)}
