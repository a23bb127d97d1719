"""Numbers on their way from the device to the host."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


class Reading:
    """A small tensor that is being copied to the host while both go on with their work."""

    def __init__(self, numbers: Tensor) -> None:
        self._host = numbers.detach().to("cpu", non_blocking=True)  # into pinned memory
        self._event: torch.cuda.Event | None = None
        if numbers.is_cuda:
            self._event = torch.cuda.Event()
            self._event.record()

    def ready(self) -> bool:
        """Whether the numbers have arrived; at once where the device is the host."""
        return self._event is None or self._event.query()

    def values(self) -> list[float]:
        """The numbers, waited for."""
        if self._event is not None:
            self._event.synchronize()
        numbers: list[float] = self._host.tolist()
        return numbers
