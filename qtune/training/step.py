"""One optimizer step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch

from qtune import oom
from qtune.errors import DivergedError
from qtune.oom import during
from qtune.optim import step_unless
from qtune.ranks import ALONE
from qtune.training.reading import Reading
from qtune.training.stopwatch import Stopwatch
from qtune.training.watch import Watchdog, check_changed, check_gradients_alive, mark

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor
    from torch.optim import Optimizer

    from qtune.data.batch import Batch
    from qtune.losses import LossOutput
    from qtune.methods.base import Method
    from qtune.ranks import Ranks


class Loss(Protocol):
    """A model and a micro-batch to a loss summed over its supervised tokens."""

    def __call__(self, model: Any, batch: Batch, *, divisor: float = 1.0) -> LossOutput:
        """Forward pass and loss of one micro-batch; the sum will be divided by `divisor`."""
        ...


@dataclass(frozen=True)
class StepResult:
    """What one step did: mean loss in nats per supervised token, gradient norm before clipping,
    counts over all processes, and the seconds in which this one waited for the others' gradients.
    """

    loss: float
    grad_norm: float
    counts: Counts
    joining: float = 0.0


@dataclass(frozen=True)
class Counts:
    """Tokens of a step over all processes: of its rows, learnt, computed, computed once for all."""

    tokens: int
    supervised: int
    computed: int
    shared: int

    @classmethod
    def of(cls, micro_batches: Sequence[Batch], ranks: Ranks) -> Counts:
        """Those of this process's micro-batches and of the others'."""
        return cls(*ranks.totals([_sum(micro_batches, name) for name in _COUNTED]))

    def split_anew(self, before: Sequence[Batch], after: Sequence[Batch]) -> Counts:
        """With this process's rows in other micro-batches, which the others need not know."""
        own = [_sum(after, name) - _sum(before, name) for name in _COUNTED]
        return Counts(*(getattr(self, n) + more for n, more in zip(_COUNTED, own, strict=True)))


_COUNTED = ("tokens", "supervised", "computed", "shared")


def _sum(micro_batches: Sequence[Batch], name: str) -> int:
    return sum(getattr(batch, name) for batch in micro_batches)


class Outcome:
    """A step that was given to the device; its numbers come when it has done it."""

    def __init__(
        self,
        told: Tensor,
        micro_batches: Sequence[Batch],
        *,
        step: int,
        counts: Counts,
        watchdog: Watchdog,
        joining: Stopwatch,
    ) -> None:
        self._reading = Reading(told)
        self._micro_batches = micro_batches
        self._step = step
        self._counts = counts
        self._watchdog = watchdog
        self._joining = joining
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
        self._watchdog.check(loss, grad_norm, step=self._step, micro_batches=self._micro_batches)
        if stop:  # the host's rules are the device's; were they not, nothing more would be learnt
            raise DivergedError(f"step {self._step + 1}: the device refused the update")
        return StepResult(loss, grad_norm, self._counts, self._joining.seconds())


@dataclass(frozen=True, kw_only=True)
class Learning:
    """What every step of a run works on and with; `ranks`: the processes that take it together."""

    model: Any
    method: Method
    loss: Loss
    optimizer: Optimizer
    max_grad_norm: float
    watchdog: Watchdog = field(default_factory=Watchdog)
    ranks: Ranks = ALONE


def train_step(
    learning: Learning, micro_batches: Sequence[Batch], *, step: int, counts: Counts
) -> Outcome:
    """Forward and backward of all micro-batches, clip, judge, update unless the verdict is to stop.

    `counts`: of the whole step, over all processes; the loss is divided by its supervised tokens,
    so its gradient does not depend on how the rows are split. A device works on while this returns;
    the first step is waited for, and raises `DivergedError` if its update changed nothing.
    """
    method, optimizer, ranks = learning.method, learning.optimizer, learning.ranks
    parameters = method.parameters()
    method.before_step(step)
    total = accumulate(learning.model, learning.loss, micro_batches, counts.supervised)
    if step == 0 and micro_batches:
        check_gradients_alive(parameters)
    with Stopwatch(total.device) as joining:
        ranks.add_gradients(parameters.values())
        ranks.add(total)
    extra = method.extra_loss()  # the same on every process, so it counts once
    if extra is not None:
        extra.backward()
    method.after_backward(step)
    norm = torch.nn.utils.clip_grad_norm_(parameters.values(), learning.max_grad_norm)
    mean = total / counts.supervised
    stop = learning.watchdog.judge(mean, norm)
    told = torch.stack([mean.double(), norm.double(), stop.double()])
    outcome = Outcome(
        told, micro_batches, step=step, counts=counts, watchdog=learning.watchdog, joining=joining
    )
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
            (output.sum * 0.0 if batch.idle else output.sum / supervised).backward()
        if not batch.idle:
            total += output.sum.detach()
    return total
