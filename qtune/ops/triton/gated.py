"""act(gate) * up by elements, and both gradients in the place of what they are made of.

Rows [T, F] with a stride of one inside a row, so that gate and up may be halves of one product;
everything in fp32, rounded once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from qtune.ops.triton.arithmetic import rounded, sigmoid, tanh
from qtune.ops.triton.jit import jit, launch, power_of_two, tl

if TYPE_CHECKING:
    from torch import Tensor

BLOCK = 1024


@jit
def _act(x: tl.tensor, ACTIVATION: tl.constexpr) -> tl.tensor:
    """The activation and its derivative."""
    if ACTIVATION == "silu":
        share = sigmoid(x)
        acted = x * share
        slope = share * (1.0 + x * (1.0 - share))
    elif ACTIVATION == "gelu":
        share = 0.5 * (1.0 + tl.erf(x * 0.7071067811865476))
        acted = x * share
        slope = share + x * tl.exp(-0.5 * x * x) * 0.3989422804014327
    else:
        tl.static_assert(ACTIVATION == "gelu_tanh")
        inner = 0.7978845608028654 * (x + 0.044715 * x * x * x)
        bent = tanh(inner)
        acted = 0.5 * x * (1.0 + bent)
        steep = 0.7978845608028654 * (1.0 + 0.134145 * x * x)
        slope = 0.5 * (1.0 + bent) + 0.5 * x * (1.0 - bent * bent) * steep
    return acted, slope


@jit
def _forward(
    gate_ptr: tl.tensor,
    up_ptr: tl.tensor,
    inner_ptr: tl.tensor,
    width: tl.tensor,
    gate_stride: tl.tensor,
    up_stride: tl.tensor,
    ACTIVATION: tl.constexpr,
    SIZE: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * SIZE + tl.arange(0, SIZE)
    inside = at < width
    gate = tl.load(gate_ptr + row * gate_stride + at, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(up_ptr + row * up_stride + at, mask=inside, other=0.0).to(tl.float32)
    acted, _ = _act(gate, ACTIVATION)
    made = rounded(acted * up, inner_ptr.dtype.element_ty)
    tl.store(inner_ptr + row * width + at, made, mask=inside)


@jit
def _backward(
    into_ptr: tl.tensor,
    inner_ptr: tl.tensor,
    gate_ptr: tl.tensor,
    up_ptr: tl.tensor,
    width: tl.tensor,
    gate_stride: tl.tensor,
    up_stride: tl.tensor,
    ACTIVATION: tl.constexpr,
    SIZE: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * SIZE + tl.arange(0, SIZE)
    inside = at < width
    gate = tl.load(gate_ptr + row * gate_stride + at, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(up_ptr + row * up_stride + at, mask=inside, other=0.0).to(tl.float32)
    into = tl.load(into_ptr + row * width + at, mask=inside, other=0.0).to(tl.float32)
    acted, slope = _act(gate, ACTIVATION)
    dtype = into_ptr.dtype.element_ty
    tl.store(into_ptr + row * width + at, rounded(into * up * slope, dtype), mask=inside)
    tl.store(inner_ptr + row * width + at, rounded(into * acted, dtype), mask=inside)


def forward(gate_TF: Tensor, up_TF: Tensor, activation: str) -> Tensor:
    """act(gate) * up [T, F] by the activation's name: silu, gelu or gelu_tanh."""
    gate_TF, up_TF = _rows(gate_TF), _rows(up_TF)
    inner_TF = torch.empty(gate_TF.shape, dtype=gate_TF.dtype, device=gate_TF.device)
    _launch(_forward, (gate_TF, up_TF, inner_TF), (gate_TF, up_TF), activation)
    return inner_TF


def backward_in_place(
    into_TF: Tensor, inner_TF: Tensor, gate_TF: Tensor, up_TF: Tensor, activation: str
) -> None:
    """Turn the gradient of act(gate) * up into that of gate, and `inner`, whatever it holds, into
    that of up: both [T, F], contiguous, and nobody else's."""
    assert into_TF.is_contiguous()
    assert inner_TF.is_contiguous()
    gate_TF, up_TF = _rows(gate_TF), _rows(up_TF)
    _launch(_backward, (into_TF, inner_TF, gate_TF, up_TF), (gate_TF, up_TF), activation)


def _launch(
    kernel: object, tensors: tuple[Tensor, ...], pair: tuple[Tensor, Tensor], activation: str
) -> None:
    rows, width = pair[0].shape
    size = min(BLOCK, power_of_two(max(width, 1)))
    strides = (each.stride(0) for each in pair)
    grid = (rows, -(-width // size))
    launch(kernel, grid, *tensors, width, *strides, ACTIVATION=activation, SIZE=size, num_warps=4)


def _rows(tensor_TF: Tensor) -> Tensor:
    return tensor_TF if tensor_TF.stride(-1) == 1 else tensor_TF.contiguous()
