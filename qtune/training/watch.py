"""The watchdog: a run that diverges, or that learns nothing, is stopped before the update."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from qtune.errors import DivergedError, first_few

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor
    from torch.nn import Parameter

    from qtune.data.batch import Batch
    from qtune.ranks import Ranks
    from qtune.recipe.steps import WatchdogSection

_LEARNT = 1e-6  # nats: below it a gradient may well round to zero, for all is known


@dataclass
class Watchdog:
    """Limits on each step's loss (nats per supervised token) and gradient norm before clipping.

    A limit must be passed `patience` steps in a row; what is not finite stops at once, and so does
    a gradient that is exactly zero while there is a loss: weights thrown so far that an activation
    overflows have none, for ever.

    `above`: how many steps in a row have passed a limit by now.
    """

    loss_limit: float = math.inf
    grad_norm_limit: float = math.inf
    patience: int = 1
    above: int = field(default=0, init=False)
    _above_there: Tensor | None = field(default=None, init=False)
    _stop: Tensor | None = field(default=None, init=False)

    @classmethod
    def of_recipe(cls, section: WatchdogSection) -> Watchdog:
        """The limits of a recipe."""
        return cls(
            loss_limit=section.loss_limit or math.inf,
            grad_norm_limit=section.grad_norm_limit or math.inf,
            patience=section.patience,
        )

    def judge(self, loss: Tensor, grad_norm: Tensor) -> Tensor:
        """Whether the update must not be made, by the rules of `check`: a bool scalar where the
        numbers are, of which nothing is read. Once true it stays so."""
        loss, grad_norm = loss.double(), grad_norm.double()  # as the host will see them
        passed = (loss > self.loss_limit) | (grad_norm > self.grad_norm_limit)
        former = self.above if self._above_there is None else self._above_there
        self._above_there = (former + 1) * passed
        stop = ~(loss.isfinite() & grad_norm.isfinite()) | (self._above_there >= self.patience)
        stop |= (grad_norm == 0) & (loss > _LEARNT)
        self._stop = stop if self._stop is None else self._stop | stop
        return self._stop

    def check(
        self, loss: float, grad_norm: float, *, step: int, micro_batches: Sequence[Batch]
    ) -> None:
        """Raise `DivergedError` with the step and its rows; no update has been made then."""
        numbers = f"loss {loss:g}, gradient norm {grad_norm:g}"
        if not (math.isfinite(loss) and math.isfinite(grad_norm)):
            raise _diverged(
                f"step {step + 1}: {numbers}; no update was made",
                micro_batches,
                hint="lower optim.learning_rate, or look at these rows",
            )
        if grad_norm == 0 and loss > _LEARNT:
            raise _diverged(
                f"step {step + 1}: loss {loss:g}, but the gradient is exactly zero: the weights "
                "are where nothing can be learnt any more",
                micro_batches,
                hint="lower optim.learning_rate; a checkpoint from before may still be sound",
            )
        self.above = self.above + 1 if self._passed(loss, grad_norm) else 0
        if self.above >= self.patience:
            limits = f"loss_limit {self.loss_limit:g}, grad_norm_limit {self.grad_norm_limit:g}"
            times = f" for {self.patience} steps" if self.patience > 1 else ""
            raise _diverged(
                f"step {step + 1}: {numbers}, above the watchdog's limits{times} ({limits})",
                micro_batches,
                hint="lower optim.learning_rate, or look at these rows",
            )

    def _passed(self, loss: float, grad_norm: float) -> bool:
        return loss > self.loss_limit or grad_norm > self.grad_norm_limit


def _diverged(message: str, micro_batches: Sequence[Batch], *, hint: str) -> DivergedError:
    places = tuple(place for batch in micro_batches for place in batch.places)
    error = DivergedError(message, place=first_few(places), hint=hint)
    error.rows = places
    return error


def check_gradients_alive(parameters: Mapping[str, Parameter]) -> None:
    """After the first backward pass: every trainable tensor has a gradient (`DivergedError`).

    Gradient checkpointing over a frozen base can cut the graph without an error; nothing would
    be learnt.
    """
    dead = [
        name
        for name, parameter in parameters.items()
        if parameter.requires_grad and parameter.grad is None
    ]
    if dead:
        raise DivergedError(
            f"{len(dead)} of {len(parameters)} trainable tensors got no gradient",
            place=dead[0],
            hint="this is not your recipe's fault; please report it with the model's name",
        )


def mark(parameters: Mapping[str, Parameter]) -> list[tuple[float, float]]:
    """Sum and sum of squares of every tensor: enough to see whether an update changed it."""
    return [
        (float(tensor.sum(dtype=torch.float64)), float(tensor.double().square().sum()))
        for tensor in (parameter.detach() for parameter in parameters.values())
    ]


def check_changed(before: list[tuple[float, float]], parameters: Mapping[str, Parameter]) -> None:
    """After the first update: some tensor is another one (`DivergedError`)."""
    if mark(parameters) == before:
        raise DivergedError(
            "the first update changed no trainable tensor",
            place="optim.learning_rate",
            hint="the learning rate is too small for the adapter's dtype, or its gradients vanish",
        )


def check_finite(parameters: Mapping[str, Parameter]) -> None:
    """`DivergedError` when a weight is NaN or infinite: such weights are never saved."""
    broken = [
        name
        for name, parameter in parameters.items()
        if not bool(torch.isfinite(parameter.detach()).all())
    ]
    if broken:
        raise DivergedError(
            f"{len(broken)} trainable tensors are no longer finite; they were not saved",
            place=first_few(broken),
            hint="lower optim.learning_rate; the last checkpoint is whole",
        )


def check_same(parameters: Mapping[str, Parameter], ranks: Ranks) -> None:
    """`DivergedError` when the processes of a run do not hold the same weights any more: one whose
    device or memory is broken spoils the result of all."""
    if not ranks.alone and (strays := ranks.strays(mark(parameters))):
        raise DivergedError(
            f"the weights of process {strays[0]} are no longer those of process 0; not saved",
            hint="its device or its memory may be broken; the last checkpoint is whole",
        )
