"""Who computes what is no product of matrices: torch's operators, or the kernels of `ops/triton`.

One choice for the whole process, made once a run (`qtune.ops.trial`); before it, torch computes.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    import torch
    from torch import Tensor

Family = Literal["rms_norm", "gated", "rotary", "nf4", "cross_entropy"]
FAMILIES: tuple[Family, ...] = get_args(Family)


@dataclass
class _Choice:
    families: frozenset[Family] = frozenset()
    on_cpu: bool = False


_choice = _Choice()


def by_triton(family: Family, tensor: Tensor) -> bool:
    """Whether a family's kernels are to be launched on a tensor."""
    return family in _choice.families and (tensor.is_cuda or _choice.on_cpu)


def take(families: Collection[Family]) -> None:
    """Compute these by Triton from now on, and all others by torch."""
    _choice.on_cpu = bool(families) and interpreted()
    _choice.families = frozenset(families)


@contextmanager
def taking(families: Collection[Family]) -> Iterator[None]:
    """`take` for a while."""
    before = _choice.families
    take(families)
    try:
        yield
    finally:
        take(before)


def why_torch(device: torch.device) -> str | None:
    """What keeps Triton's kernels from a device; None where they can run."""
    if find_spec("triton") is None:
        return "triton is not installed"
    if device.type != "cuda" and not interpreted():
        return "no CUDA device"
    return None


def interpreted() -> bool:
    """Whether TRITON_INTERPRET=1 lets kernels run on any device, slowly."""
    if find_spec("triton") is None:
        return False
    from qtune.ops.triton.jit import INTERPRETED

    return INTERPRETED
