"""A product of fp32 factors added to a bf16 tensor, on units that multiply bf16.

An fp32 number is the sum of two bf16 numbers to 2^-17 of it (Henry et al. 2019, "Leveraging the
bfloat16 Artificial Intelligence Datatype"). Of the four products of halves the smallest is left
out; the other three are one product of three times the inner width, summed in fp32 and rounded once
with what it is added to, where a product in fp32 is rounded to bf16 before it is added.
"""

from __future__ import annotations

import torch
from torch import Tensor


def add_product(output_TN: Tensor, left_Tr: Tensor, right_rN: Tensor, *, scale: float) -> bool:
    """output += scale left @ right, in place; False, and nothing done, for other dtypes.

    Meant for a small r: three times r must still be little beside T and N.
    """
    if output_TN.dtype != torch.bfloat16 or left_Tr.dtype != torch.float32:
        return False
    left, right = _halves(left_Tr), _halves(right_rN)
    output_TN.addmm_(
        torch.cat([left[0], left[1], left[0]], dim=1),
        torch.cat([right[0], right[0], right[1]], dim=0),
        alpha=scale,
    )
    return True


def _halves(factor: Tensor) -> tuple[Tensor, Tensor]:
    """(high, low) in bf16, whose sum is the factor."""
    high = factor.to(torch.bfloat16)
    return high, (factor - high).to(torch.bfloat16)
