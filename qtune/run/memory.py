"""The memory a process really used."""

from __future__ import annotations

import resource
import sys

import torch


def limit(device: torch.device, *, budget: int) -> None:
    """Make a GPU refuse more than `budget` bytes, so that the plan's promise is kept or broken
    here and not on another card."""
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, budget / total), device)


def peak_bytes() -> int:
    """The most memory this process held: on the GPU if there is one, else in the host (RSS)."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_reserved())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts kilobytes, macOS bytes
    return peak if sys.platform == "darwin" else peak * 1024
