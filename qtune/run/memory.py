"""The memory a process really used."""

from __future__ import annotations

import resource
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from qtune.oom import status
from qtune.plan import human
from qtune.plan.memory import CUDA_CONTEXT

if TYPE_CHECKING:
    from collections.abc import Mapping


def limit(device: torch.device, *, budget: int) -> None:
    """Make a GPU refuse more than `budget` bytes, so that the plan's promise is kept or broken
    here and not on another card."""
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        # accelerate's may have no index, and is the current one then
        index = torch.cuda.current_device() if device.index is None else device.index
        torch.cuda.set_per_process_memory_fraction(min(1.0, budget / total), index)


def forget_peak() -> None:
    """Let `peak_bytes` begin again at what is held now, where the system allows it: what loading
    took is no part of what training takes."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_bytes() -> int:
    """The most memory this process held since `forget_peak`, as a plan counts it: on the GPU, if
    there is one, what the allocator took and the context; else what was resident in the host."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_reserved()) + CUDA_CONTEXT
    peak = status().get("VmHWM")
    if peak is not None:
        return peak
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts kilobytes, macOS bytes
    return peak if sys.platform == "darwin" else peak * 1024


def held_bytes() -> int:
    """What this process holds now: tensors on the GPU, if there is one, else resident memory."""
    if torch.cuda.is_available():
        return int(torch.cuda.memory_allocated())
    return status().get("VmRSS", 0)


def most_held_bytes() -> int:
    """The most of it since `forget_peak`."""
    return int(torch.cuda.max_memory_allocated()) if torch.cuda.is_available() else peak_bytes()


def compared(predicted: int, measured: int) -> dict[str, int | float]:
    """A plan's bytes beside the measured peak, and by what share the peak is larger."""
    return {
        "predicted_bytes": predicted,
        "measured_peak_bytes": measured,
        "error": round(measured / predicted - 1, 4),
    }


def memory_line(memory: Mapping[str, int | float]) -> str:
    """The same in words."""
    measured, predicted = int(memory["measured_peak_bytes"]), int(memory["predicted_bytes"])
    error = memory["error"]
    how = f"{abs(error):.1%} {'more' if error > 0 else 'less'}" if error else "exactly"
    return f"memory: {human(measured)} at the peak, {human(predicted)} planned ({how})"
