"""One optimizer step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch

from qtune import oom
from qtune.errors import DivergedError
from qtune.oom import during
from qtune.optim import step_unless
from qtune.training.reading import Reading
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
    shared: int


class Outcome:
    """A step that was given to the device; its numbers come when it has done it."""

    def __init__(
        self, told: Tensor, micro_batches: Sequence[Batch], *, step: int, watchdog: Watchdog
    ) -> None:
        self._reading = Reading(told)
        self._micro_batches = micro_batches
        self._step = step
        self._watchdog = watchdog
        self._result: StepResult | None = None

    def ready(self) -> bool:
        """Whether `settle` would not wait."""
        return self._reading.ready()

    def settle(self) -> StepResult:
        """Wait for the numbers; `DivergedError` if the update was not made, for the loss or the
        gradient norm is not finite or passes the watchdog's limits."""
        if self._result is None:
            self._result = self._checked()
        return self._result

    def _checked(self) -> StepResult:
        loss, grad_norm, stop = self._reading.values()
        batches = self._micro_batches
        self._watchdog.check(loss, grad_norm, step=self._step, micro_batches=batches)
        if stop:  # the host's rules are the device's; were they not, nothing more would be learnt
            raise DivergedError(f"step {self._step + 1}: the device refused the update")
        return StepResult(
            loss=loss,
            grad_norm=grad_norm,
            tokens=sum(batch.tokens for batch in batches),
            supervised=sum(batch.supervised for batch in batches),
            computed=sum(batch.computed for batch in batches),
            shared=sum(batch.shared for batch in batches),
        )


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
) -> Outcome:
    """Forward and backward of all micro-batches, clip, judge, update unless the verdict is to stop.

    The loss is divided by the supervised tokens of the *whole* step, so its gradient does not
    depend on how the rows are split. A device works on while this returns; the first step is
    waited for, and raises `DivergedError` if its update changed nothing.
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
    mean = total / supervised
    stop = watchdog.judge(mean, norm)
    told = torch.stack([mean.double(), norm.double(), stop.double()])
    outcome = Outcome(told, micro_batches, step=step, watchdog=watchdog)
    if step == 0:
        outcome.settle()
    before = mark(parameters) if step == 0 else []
    step_unless(optimizer, stop)
    if step == 0:
        check_changed(before, parameters)
    method.after_step(step)
    optimizer.zero_grad(set_to_none=True)
    return outcome


def accumulate(model: Any, loss: Loss, micro_batches: Sequence[Batch], supervised: int) -> Tensor:
    """Add the gradients of every micro-batch; returns the summed loss, detached, on the device."""
    device = next(model.parameters()).device
    total = torch.zeros((), device=device)
    for batch in micro_batches:
        with during(oom.FORWARD, tokens=batch.computed):
            output = loss(model, batch.to(device), divisor=supervised)
        with during(oom.BACKWARD, tokens=batch.computed):
            (output.sum / supervised).backward()
        total += output.sum.detach()
    return total
