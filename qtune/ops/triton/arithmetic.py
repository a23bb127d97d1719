"""Functions of fp32 that several kernels call."""

from __future__ import annotations

from qtune.ops.triton.jit import INTERPRETED, jit, tl

_TRUNCATES = INTERPRETED if tl is None else tl.constexpr(INTERPRETED)


@jit
def rounded(x: tl.tensor, dtype: tl.constexpr) -> tl.tensor:
    """fp32 in another dtype, to the nearest even: the interpreter would cut bits of bf16 off."""
    if _TRUNCATES and dtype == tl.bfloat16:
        bits = x.to(tl.int32, bitcast=True)
        even = (bits + 0x7FFF + ((bits >> 16) & 1)) & -0x10000
        x = tl.where(x == x, even.to(tl.float32, bitcast=True), x)
    return x.to(dtype)


@jit
def sigmoid(x: tl.tensor) -> tl.tensor:
    """1 / (1 + exp(-x)), without a number that overflows."""
    small = tl.exp(-tl.abs(x))
    return tl.where(x < 0, small, 1.0) / (1.0 + small)


@jit
def tanh(x: tl.tensor) -> tl.tensor:
    """Near zero by its series, where the quotient would cancel."""
    square = x * x
    near = x * (1.0 - square * (1.0 / 3.0 - square * (2.0 / 15.0)))
    small = tl.exp(-2.0 * tl.abs(x))
    far = (1.0 - small) / (1.0 + small)
    return tl.where(square < 1e-3, near, tl.where(x < 0, -far, far))
