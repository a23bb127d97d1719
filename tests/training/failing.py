"""A loss that lacks memory, where and when a test says so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from qtune.losses import CausalLoss, LossOutput

if TYPE_CHECKING:
    from collections.abc import Callable

    from qtune.data.batch import Batch

REFUSAL = (
    "CUDA out of memory. Tried to allocate 3.00 GiB. GPU 0 has a total capacity of 24.00 GiB of "
    "which 1.00 GiB is free. Of the allocated memory 22.00 GiB is allocated by PyTorch"
)


class Failing:
    """As `CausalLoss`, but `fails(batch, call)` says at which calls (from 1) there is no memory,
    in the forward pass or, with `backward`, after it."""

    def __init__(
        self, fails: Callable[[Batch, int], bool], *, backward: bool = False, chunk_size: int = 16
    ) -> None:
        self.calls = 0
        self.seen: list[int] = []
        self._fails, self._backward = fails, backward
        self._loss = CausalLoss(chunk_size=chunk_size)

    def __call__(self, model: Any, batch: Batch, *, divisor: float = 1.0) -> LossOutput:
        self.calls += 1
        self.seen.append(batch.input_ids.shape[0])
        fails = self._fails(batch, self.calls)
        if fails and not self._backward:
            torch.rand(3)  # a pass that fails has drawn its dropout
            raise torch.OutOfMemoryError(REFUSAL)
        output = self._loss(model, batch, divisor=divisor)
        if fails:
            output.sum.register_hook(_refuse)
        return output


def _refuse(_: torch.Tensor) -> None:
    raise torch.OutOfMemoryError(REFUSAL)
