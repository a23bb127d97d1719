"""Where the layers of a streamed base wait, and how they come into slots on the device.

  Disk           read into slots in host memory
  Pinned         all layers in pinned host memory, copied to the device
  DiskToDevice   for a base larger than host memory: read, then copied

Each has a thread that works in the order of asking, ahead of the computation.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from qtune.models.layer_files import LayerFiles

CHUNK = 2**24  # pinned memory comes in powers of two: a layer in one piece could take it twice


def _worker() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="qtune-layers")


class Disk:
    """Slots in host memory, read into from files."""

    def __init__(self, files: LayerFiles) -> None:
        self._files = files
        self._worker = _worker()

    def start(self, layer: int, slot: Tensor) -> Callable[[], object]:
        """Begin to read; an error of the disk comes out of the wait."""
        return self._worker.submit(self._files.read, layer, slot).result


class _ToDevice(ABC):
    """Slots on a CUDA device, copied to by a stream beside the one that computes."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)
        self._worker = _worker()

    def start(self, layer: int, slot: Tensor) -> Callable[[], object]:
        """Begin to copy as soon as all is done that was asked of the device before this call."""
        slot.record_stream(self._stream)
        free = torch.cuda.current_stream(slot.device).record_event()
        arrival = self._worker.submit(self._bring, layer, slot, free)
        return lambda: torch.cuda.current_stream(slot.device).wait_event(arrival.result())

    def _bring(self, layer: int, slot: Tensor, free: torch.cuda.Event) -> torch.cuda.Event:
        with torch.cuda.stream(self._stream):
            self._stream.wait_event(free)
            self._copy(layer, slot)
            arrived: torch.cuda.Event = self._stream.record_event()
            return arrived

    @abstractmethod
    def _copy(self, layer: int, slot: Tensor) -> None:
        """Ask the current stream for the copy."""


class Pinned(_ToDevice):
    """All layers in pinned memory, in chunks."""

    def __init__(
        self, files: LayerFiles, device: torch.device, on_layer: Callable[[], None]
    ) -> None:
        super().__init__(device)
        self._layers: list[tuple[Tensor, ...]] = []
        for layer in range(len(files.layers)):
            content = torch.empty(files.bytes_of(layer), dtype=torch.uint8)
            files.read(layer, content)
            self._layers.append(tuple(chunk.pin_memory() for chunk in content.split(CHUNK)))
            on_layer()

    def _copy(self, layer: int, slot: Tensor) -> None:
        for chunk, room in zip(self._layers[layer], slot.split(CHUNK), strict=False):
            room[: len(chunk)].copy_(chunk, non_blocking=True)


class DiskToDevice(_ToDevice):
    """Layers that are read when they are needed, through pinned memory for one of them."""

    def __init__(self, files: LayerFiles, device: torch.device, size: int) -> None:
        super().__init__(device)
        self._files = files
        self._passing = torch.empty(size, dtype=torch.uint8, pin_memory=True)
        self._passed: torch.cuda.Event | None = None

    def _copy(self, layer: int, slot: Tensor) -> None:
        if self._passed is not None:
            self._passed.synchronize()  # the last layer may still be on its way out
        self._files.read(layer, self._passing)
        size = self._files.bytes_of(layer)
        slot[:size].copy_(self._passing[:size], non_blocking=True)
        self._passed = self._stream.record_event()
