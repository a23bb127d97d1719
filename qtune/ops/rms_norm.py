"""weight * x / rms(x), computed in fp32 and rounded to the input's dtype before the weight.

`plain` is the definition (Zhang & Sennrich 2019, as Llama rounds it). `fused` keeps x in its own
dtype and 1/rms of each row, and what it returns knows how it was made: an op that needs it again
in its backward pass makes it anew instead of keeping it (`Source`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from qtune.ops.element_wise import by_triton

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

# Elements in fp32 at a time: a few such pieces stay in the cache of one core.
PIECE = 2**18
_SOURCE = "qtune_source"


class Source(NamedTuple):
    """What a normalised tensor was made of: rows [N, M], 1/rms of each [N, 1], the weight [M]."""

    rows: Tensor
    inverse: Tensor
    weight: Tensor

    def make(self) -> Tensor:
        """The normalised rows [N, M], bit for bit."""
        if by_triton("rms_norm", self.rows):
            from qtune.ops.triton import rms_norm as kernels

            return kernels.again(self.rows, self.weight, self.inverse)
        made = torch.empty_like(self.rows)
        for rows in _pieces(made):
            wide = self.rows[rows].float() * self.inverse[rows]
            torch.mul(wide.to(made.dtype), self.weight, out=made[rows])
        return made


def source_of(x: Tensor) -> Source | None:
    """How a tensor was made, if `fused` made it."""
    return getattr(x, _SOURCE, None)


def kept_input(x: Tensor, *, wanted: bool) -> tuple[Tensor | None, ...]:
    """What an op saves to have its input x again: x itself, or what it was made of, or nothing."""
    if not wanted:
        return None, None, None, None
    source = source_of(x)
    return (x, None, None, None) if source is None else (None, *source)


def input_again(kept: Sequence[Tensor | None]) -> Tensor | None:
    """Rows [N, M] of the input that `kept_input` kept."""
    x, x_NM, inverse_N1, weight_M = kept
    if x is not None:
        return x.reshape(-1, x.shape[-1])
    if x_NM is None or inverse_N1 is None or weight_M is None:
        return None
    return Source(x_NM, inverse_N1, weight_M).make()


def plain(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """[..., M] -> [..., M]; weight [M] in the dtype of x."""
    wide = x.float()
    normal = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    return weight * normal.to(x.dtype)


def fused(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """As `plain`; the weight gets no gradient."""
    normal = _normal(x.detach().reshape(-1, x.shape[-1]), weight.detach(), eps)
    made: Tensor = _Normal.apply(x, normal)  # type: ignore[no-untyped-call]
    setattr(made, _SOURCE, normal[1])
    return made


class _Normal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, normal: tuple[Tensor, Source]) -> Tensor:
        made_NM, source = normal
        ctx.save_for_backward(*source)
        # no view for autograd: the last norm gives the decoder's output, and hooks lose views
        return torch.ops.aten._unsafe_view(made_NM, x.shape)  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        source = Source(*ctx.saved_tensors)
        into_NM = _back(gradient.reshape(source.rows.shape), source)
        return into_NM.view(gradient.shape), None


def _normal(x_NM: Tensor, weight_M: Tensor, eps: float) -> tuple[Tensor, Source]:
    """The normalised rows, and what they were made of."""
    if by_triton("rms_norm", x_NM):
        from qtune.ops.triton import rms_norm as kernels

        made_NM, inverse_N1 = kernels.forward(x_NM, weight_M, eps)
        return made_NM, Source(x_NM, inverse_N1, weight_M)
    inverse_N1 = torch.empty(x_NM.shape[0], 1, dtype=torch.float32, device=x_NM.device)
    for rows in _pieces(x_NM):
        inverse_N1[rows] = x_NM[rows].float().pow(2).mean(-1, keepdim=True).add_(eps).rsqrt_()
    source = Source(x_NM, inverse_N1, weight_M)
    return source.make(), source


def _back(gradient_NM: Tensor, source: Source) -> Tensor:
    """The gradient of the rows."""
    x_NM, inverse_N1, weight_M = source
    if by_triton("rms_norm", x_NM):
        from qtune.ops.triton import rms_norm as kernels

        return kernels.backward(gradient_NM, x_NM, weight_M, inverse_N1)
    into_NM = torch.empty_like(x_NM)
    weight = weight_M.float()
    for rows in _pieces(x_NM):
        inverse = inverse_N1[rows]
        normal = x_NM[rows].float() * inverse
        wide = gradient_NM[rows].float() * weight
        along = (wide * normal).mean(-1, keepdim=True)
        into_NM[rows] = wide.addcmul_(normal, along, value=-1.0).mul_(inverse)
    return into_NM


def _pieces(x_NM: Tensor) -> Iterator[slice]:
    """Slices of rows; all at once on a GPU."""
    rows = x_NM.shape[0]
    step = max(1, PIECE // x_NM.shape[1]) if x_NM.device.type == "cpu" else max(rows, 1)
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))
