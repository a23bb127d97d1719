"""Where the Triton kernels are tested: on a GPU by `pytest -m gpu`, else interpreted.

    CUDA_VISIBLE_DEVICES=0 pytest -m gpu tests/ops

Torch for CUDA brings triton; beside torch for CPUs it must be installed, or these tests skip.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from qtune.ops.element_wise import why_torch

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
needs_kernels = [
    pytest.mark.skipif(why_torch(DEVICE) is not None, reason=str(why_torch(DEVICE))),
    *([pytest.mark.gpu] if DEVICE.type == "cuda" else []),
]
"""Kernels run on whatever device is here; those of a GPU are not of the ordinary suite."""


def drawn(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """Normal numbers that bf16 can hold, the same on every device."""
    draw = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(shape, generator=draw).bfloat16().to(dtype).to(DEVICE)


def distance(found: Tensor, wanted: Tensor) -> float:
    """Relative difference in the 2-norm."""
    wanted = wanted.double()
    return float((found.double() - wanted).norm() / wanted.norm().clamp_min(1e-12))
