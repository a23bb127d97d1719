"""The door to triton: its compiler and language where it is installed, nothing where it is not."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError:  # a kernel is then a function that nobody launches
    triton = tl = None

__all__ = ["INTERPRETED", "VERSION", "jit", "launch", "power_of_two", "tl", "warps"]

VERSION: str | None = None if triton is None else triton.__version__
INTERPRETED = VERSION is not None and os.environ.get("TRITON_INTERPRET") == "1"
"""Whether kernels run on any device, element by element, to be tested."""


def jit(function: Any) -> Any:
    """A kernel, or a function that kernels call.

    The compiler looks at annotations, too: it knows `tl` and no other name of the file.
    """
    return function if triton is None else triton.jit(function)


def launch(
    kernel: Any, grid: tuple[int, ...], first: Tensor, *arguments: Any, **fixed: Any
) -> None:
    """Run a kernel on the device of its first argument; an empty grid is nothing to do.

    Multiplying and adding stay apart, as in torch's operators and in bitsandbytes' kernels.
    """
    if all(grid):
        with torch.cuda.device_of(first):
            kernel[grid](first, *arguments, enable_fp_fusion=False, **fixed)


def power_of_two(size: int) -> int:
    """The smallest that is no smaller than size >= 1: what the sides of a block must be."""
    return 1 << (size - 1).bit_length()


def warps(elements: int) -> int:
    """Of a program that works on so many elements at a time."""
    return min(16, max(1, elements // 512))
