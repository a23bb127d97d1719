"""How long the device is at something, without making the host wait for it."""

from __future__ import annotations

import time
from typing import Self

import torch


class Stopwatch:
    """Measures a block on a device; `seconds` once the device is known to have passed it."""

    def __init__(self, device: torch.device) -> None:
        self._events = (
            [torch.cuda.Event(enable_timing=True) for _ in range(2)]
            if device.type == "cuda"
            else []
        )
        self._times: list[float] = []

    def __enter__(self) -> Self:
        self._note(0)
        return self

    def __exit__(self, *_: object) -> None:
        self._note(1)

    def _note(self, number: int) -> None:
        if self._events:
            self._events[number].record()
        else:
            self._times.append(time.perf_counter())

    def seconds(self) -> float:
        """Of the block."""
        if self._events:
            begun, ended = self._events
            return float(begun.elapsed_time(ended)) / 1000.0
        return self._times[1] - self._times[0]
