"""Tensors that autograd keeps, in pinned host memory instead of on the device.

The copies run on a stream of their own, beside the computation. Backward passes ask for the last
tensor first, so each one that is asked for starts the way back of the one saved before it. Only
autograd's graph keeps a tensor: what a pass that failed has left is gone with its graph.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from weakref import ref

import torch

if TYPE_CHECKING:
    from torch import Tensor

SMALL = 1 << 16  # bytes; a smaller tensor (positions, masks) is not worth two copies


@dataclass(eq=False)
class _Away:
    """A tensor in host memory, and its copy on the device once it is on its way back."""

    host: Tensor
    device: torch.device
    before: ref[_Away] | None
    copied: torch.cuda.Event | None = None
    back: Tensor | None = None
    arrived: torch.cuda.Event | None = None


@dataclass(eq=False)
class HostInputs:
    """Hooks for `saved_tensors_hooks`; what lies in host memory already stays where it is."""

    _last: ref[_Away] | None = field(default=None, init=False)
    _stream: torch.cuda.Stream | None = field(default=None, init=False)

    def pack(self, tensor: Tensor) -> Tensor | _Away:
        """Start the way of a tensor to host memory."""
        if not tensor.is_cuda or tensor.nbytes < SMALL:
            return tensor
        stream = self._side(tensor.device)
        host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        away = _Away(host, tensor.device, before=self._last)
        stream.wait_stream(torch.cuda.current_stream(tensor.device))
        with torch.cuda.stream(stream):
            host.copy_(tensor, non_blocking=True)
            away.copied = stream.record_event()
        tensor.record_stream(stream)
        self._last = ref(away)
        return away

    def unpack(self, kept: Tensor | _Away) -> Tensor:
        """The tensor, back on its device."""
        if not isinstance(kept, _Away):
            return kept
        self._fetch(kept)
        before = kept.before() if kept.before is not None else None
        if before is not None:
            self._fetch(before)
        assert kept.back is not None
        assert kept.arrived is not None
        current = torch.cuda.current_stream(kept.device)
        current.wait_event(kept.arrived)
        kept.back.record_stream(current)
        tensor, kept.back = kept.back, None
        # the pass is over for all saved after this one
        self._last, kept.before = kept.before, None
        return tensor

    def _fetch(self, away: _Away) -> None:
        """Start the way back, once."""
        if away.back is not None:
            return
        stream = self._side(away.device)
        with torch.cuda.stream(stream):
            if away.copied is not None:
                stream.wait_event(away.copied)
            away.back = away.host.to(away.device, non_blocking=True)
            away.arrived = stream.record_event()

    def _side(self, device: torch.device) -> torch.cuda.Stream:
        self._stream = self._stream or torch.cuda.Stream(device)
        return self._stream
