"""The dense weight of a frozen layer: unfolded for each use, or kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch.nn import functional

from qtune.ops.nf4 import bits_of, dequantize_int8, int8_parts, state_of, weight_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

_KEPT = "dense_weight_kept"


def dense(layer: nn.Module, dtype: torch.dtype) -> Tensor:
    """The weight [out, in] that a layer multiplies with, in `dtype`; do not write to it."""
    kept = kept_dense(layer)
    if kept is not None:
        return kept
    if bits_of(layer) == 8:
        return dequantize_int8(*int8_parts(layer), dtype=dtype)
    return weight_of(layer).to(dtype)


def compute_dtype(layer: nn.Module) -> torch.dtype | None:
    """In what a layer multiplies, whatever its input; None for 8-bit layers, which follow it."""
    bits = bits_of(layer)
    if bits == 4:
        return state_of(layer).dtype  # type: ignore[no-any-return]
    weight: Any = layer.weight
    return None if bits == 8 else weight.dtype


def keep_dense(layer: nn.Module) -> int:
    """Keep a 4-bit layer's dense weight beside it, in the dtype it multiplies in; its bytes.

    No parameter and no buffer: state dicts and inventories do not know it.
    """
    weight = weight_of(layer)
    object.__setattr__(layer, _KEPT, weight)
    return weight.nbytes


def kept_dense(layer: nn.Module) -> Tensor | None:
    """The dense weight that `keep_dense` keeps."""
    return getattr(layer, _KEPT, None)


def product(layer: nn.Module, x_TM: Tensor, weight_NM: Tensor | None) -> Tensor:
    """base(x) [T, N] of a frozen layer, with the weight that `dense` gave."""
    if weight_NM is None:
        return layer(x_TM)  # type: ignore[no-any-return]
    return functional.linear(x_TM, weight_NM, getattr(layer, "bias", None))


def forward_weight(layer: nn.Module, x_TM: Tensor) -> Tensor | None:
    """The weight of the forward product; None where the layer has a product of its own.

    LLM.int8 on a GPU rounds its input too, which no product with a dense weight does.
    """
    if x_TM.is_cuda and bits_of(layer) == 8:
        return None
    return dense(layer, x_TM.dtype)
