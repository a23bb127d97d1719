"""One optimizer step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch

from qtune.training.watch import check_changed, check_gradients_alive, mark

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor
    from torch.optim import Optimizer

    from qtune.data.batch import Batch
    from qtune.losses import LossOutput
    from qtune.methods.base import Method
    from qtune.training.watch import Watchdog


class Loss(Protocol):
    """A model and a micro-batch to a loss summed over its supervised tokens."""

    def __call__(self, model: Any, batch: Batch, *, divisor: float = 1.0) -> LossOutput:
        """Forward pass and loss of one micro-batch; the sum will be divided by `divisor`."""
        ...


@dataclass(frozen=True)
class StepResult:
    """What one step did: mean loss in nats per supervised token, gradient norm before clipping."""

    loss: float
    grad_norm: float
    tokens: int
    supervised: int
    computed: int


def train_step(
    model: Any,
    loss: Loss,
    method: Method,
    optimizer: Optimizer,
    micro_batches: Sequence[Batch],
    *,
    step: int,
    max_grad_norm: float,
    watchdog: Watchdog,
) -> StepResult:
    """Forward and backward of all micro-batches, clip, check, update.

    The loss is divided by the supervised tokens of the *whole* step, so its gradient does not
    depend on how the rows are split. Raises `DivergedError` before the update if the loss or the
    gradient norm is not finite or passes the watchdog's limits, and after the first one if it
    changed nothing.
    """
    supervised = sum(batch.supervised for batch in micro_batches)
    parameters = method.parameters()
    method.before_step(step)
    total = accumulate(model, loss, micro_batches, supervised)
    extra = method.extra_loss()
    if extra is not None:
        extra.backward()
    if step == 0:
        check_gradients_alive(parameters)
    method.after_backward(step)
    norm = torch.nn.utils.clip_grad_norm_(parameters.values(), max_grad_norm)
    # one transfer, the step's only wait for the device: the update must not happen on a NaN
    loss_value, norm_value = torch.stack([total / supervised, norm.float()]).tolist()
    watchdog.check(loss_value, norm_value, step=step, micro_batches=micro_batches)
    before = mark(parameters) if step == 0 else []
    optimizer.step()
    if step == 0:
        check_changed(before, parameters)
    method.after_step(step)
    optimizer.zero_grad(set_to_none=True)
    return StepResult(
        loss=loss_value,
        grad_norm=norm_value,
        tokens=sum(batch.tokens for batch in micro_batches),
        supervised=supervised,
        computed=sum(batch.computed for batch in micro_batches),
    )


def accumulate(model: Any, loss: Loss, micro_batches: Sequence[Batch], supervised: int) -> Tensor:
    """Add the gradients of every micro-batch; returns the summed loss, detached, on the device."""
    device = next(model.parameters()).device
    total = torch.zeros((), device=device)
    for batch in micro_batches:
        output = loss(model, batch.to(device), divisor=supervised)
        (output.sum / supervised).backward()
        total += output.sum.detach()
    return total
