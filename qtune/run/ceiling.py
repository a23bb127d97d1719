"""What share of the possible a run makes of its machine.

The base is frozen: a token needs 4 N multiplications and additions at least, 2 N forward and 2 N
for the gradient by the inputs, and a supervised one as much through the head. At the rate at which
this machine multiplies matrices that takes a time; its share of a step's time is what is told.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import torch

if TYPE_CHECKING:
    from qtune.plan.shape import ModelShape

SMALL = 20_000_000
"""Weights below which a product is no matter of speed, and a measurement takes longer than it."""
ROWS, WIDEST, SECONDS = 1024, 4096, 0.2


class Done(Protocol):
    """Work that took a time."""

    @property
    def tokens(self) -> int:
        """All tokens, padding apart."""

    @property
    def supervised(self) -> int:
        """Those that were learnt."""

    @property
    def seconds(self) -> float:
        """The time it took."""


@dataclass
class Ceiling:
    """The limit of one model on one device; the rate is measured when it is first asked for."""

    weights: int
    head_weights: int
    inputs: int
    outputs: int
    device: torch.device
    dtype: torch.dtype
    processes: int = 1
    """That share the steps, each on a device like this one."""
    _rate: float | None = field(default=None, init=False)

    @classmethod
    def of(
        cls, shape: ModelShape, *, device: torch.device, dtype: torch.dtype, processes: int = 1
    ) -> Ceiling:
        """The limit of a model whose linear layers are frozen."""
        return cls(
            weights=shape.linear_parameters,
            head_weights=shape.head.weights,
            inputs=shape.hidden_size,
            outputs=shape.intermediate_size,
            device=device,
            dtype=dtype,
            processes=processes,
        )

    def share_of(self, done: Done) -> float | None:
        """Time at the limit over the time it took; None for a model that is too small to ask."""
        if self.weights < SMALL or done.seconds <= 0:
            return None
        if self._rate is None:
            self._rate = matmul_rate(self.inputs, self.outputs, self.device, self.dtype)
        needed = 4 * (self.weights * done.tokens + self.head_weights * done.supervised)
        return needed / (self.processes * self._rate) / done.seconds


def matmul_rate(inputs: int, outputs: int, device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations a second of [1024, inputs] x [inputs, outputs]: the best of some,
    for other work can only slow it down. The run's own random numbers stay as they are."""
    inputs, outputs = min(inputs, WIDEST), min(outputs, WIDEST)
    generator = torch.Generator(device).manual_seed(0)
    left, right = (
        torch.randn(shape, generator=generator, device=device, dtype=dtype)
        for shape in ((ROWS, inputs), (inputs, outputs))
    )
    best, deadline = float("inf"), time.perf_counter() + SECONDS
    while time.perf_counter() < deadline or best == float("inf"):
        start = time.perf_counter()
        _ = left @ right
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - start)
    return 2 * ROWS * inputs * outputs / best
