"""One optimizer step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch

from qtune.errors import DivergedError, first_few

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor
    from torch.optim import Optimizer

    from qtune.data.batch import Batch
    from qtune.losses import LossOutput
    from qtune.methods.base import Method


class Loss(Protocol):
    """A model and a micro-batch to a loss summed over its supervised tokens."""

    def __call__(self, model: Any, batch: Batch) -> LossOutput:
        """Forward pass and loss of one micro-batch."""
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
) -> StepResult:
    """Forward and backward of all micro-batches, clip, check, update.

    The loss is divided by the supervised tokens of the *whole* step, so its gradient does not
    depend on how the rows are split. Raises `DivergedError` before the update if the loss or the
    gradient norm is not finite.
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
    refuse_non_finite(loss_value, norm_value, step=step, micro_batches=micro_batches)
    optimizer.step()
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
        output = loss(model, batch.to(device))
        (output.sum / supervised).backward()
        total += output.sum.detach()
    return total


def refuse_non_finite(
    loss: float, grad_norm: float, *, step: int, micro_batches: Sequence[Batch]
) -> None:
    """Raise `DivergedError` with the step and its rows unless both numbers are finite."""
    if torch.isfinite(torch.tensor([loss, grad_norm])).all():
        return
    places = [place for batch in micro_batches for place in batch.places]
    raise DivergedError(
        f"step {step + 1}: loss {loss:g}, gradient norm {grad_norm:g}; no update was made",
        place=first_few(places),
        hint="lower optim.learning_rate, or look at these rows",
    )


def check_gradients_alive(parameters: dict[str, torch.nn.Parameter]) -> None:
    """After the first backward pass: every trainable tensor has a gradient (`DivergedError`).

    Gradient checkpointing over a frozen base can cut the graph without an error; nothing would
    be learnt.
    """
    dead = [name for name, parameter in parameters.items() if parameter.grad is None]
    if dead:
        raise DivergedError(
            f"{len(dead)} of {len(parameters)} trainable tensors got no gradient",
            place=dead[0],
            hint="this is not your recipe's fault; please report it with the model's name",
        )
