"""What a quantised base computes with, as the tests work it out for themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtune.ops.nf4 import dequantize, dequantize_int8, quantize, quantize_int8

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def round_trip(
    weight: Tensor,
    *,
    bits: int,
    quant_type: str,
    double_quant: bool,
    compute_dtype: torch.dtype | None = None,
) -> Tensor:
    """What a quantised base computes with, dense, in the weight's own dtype.

    `compute_dtype` is what the loader casts to before it quantises (default: the weight's dtype).
    """
    cast = weight.detach().to(compute_dtype or weight.dtype)
    if bits == 4:
        packed, state = quantize(cast, quant_type=quant_type, double_quant=double_quant)
        cast = dequantize(packed, state)
    elif bits == 8:
        cast = dequantize_int8(*quantize_int8(cast), dtype=cast.dtype)
    return cast.to(weight.dtype)
