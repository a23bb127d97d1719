"""The loop: optimizer steps and evaluations, told as events.

`fit` knows no files, screens or trackers: whoever consumes its events logs, draws and saves while
the loop waits.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qtune.optim import set_learning_rate
from qtune.training.step import Loss, train_step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch.optim import Optimizer

    from qtune.data.feed import Feed
    from qtune.methods.base import Method

Measures = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class StepEvent:
    """After optimizer step `step` (1-based) of `total`; losses in nats per supervised token."""

    step: int
    total: int
    epoch: float
    loss: float
    grad_norm: float
    learning_rate: float
    tokens: int
    supervised: int
    computed: int
    seconds: float

    @property
    def tokens_per_second(self) -> float:
        """Tokens of the step, padding apart, over its time."""
        return self.tokens / max(self.seconds, 1e-9)


@dataclass(frozen=True, kw_only=True)
class EvalEvent:
    """Held-out measures after `step` optimizer steps (0: before the first)."""

    step: int
    measures: Measures
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Job:
    """Everything one training run needs."""

    model: Any
    method: Method
    loss: Loss
    optimizer: Optimizer
    schedule: Callable[[int], float]
    feed: Feed
    total_steps: int
    steps_per_epoch: int
    max_grad_norm: float
    evaluate: Callable[[], Measures] | None = None
    evaluate_at_start: bool = True
    evaluate_every: int | None = None


def fit(job: Job) -> Iterator[StepEvent | EvalEvent]:
    """Train for `total_steps`, evaluating first, at intervals and last."""
    if job.evaluate is not None and job.evaluate_at_start:
        yield _evaluation(job, 0)
    job.model.train()
    for step, micro_batches in enumerate(job.feed.steps(job.total_steps)):
        start = time.perf_counter()
        learning_rate = set_learning_rate(job.optimizer, job.schedule(step))
        result = train_step(
            job.model,
            job.loss,
            job.method,
            job.optimizer,
            micro_batches,
            step=step,
            max_grad_norm=job.max_grad_norm,
        )
        done = step + 1
        yield StepEvent(
            step=done,
            total=job.total_steps,
            epoch=done / job.steps_per_epoch,
            loss=result.loss,
            grad_norm=result.grad_norm,
            learning_rate=learning_rate,
            tokens=result.tokens,
            supervised=result.supervised,
            computed=result.computed,
            seconds=time.perf_counter() - start,
        )
        if job.evaluate is not None and _evaluation_due(job, done):
            yield _evaluation(job, done)
            job.model.train()


def _evaluation_due(job: Job, done: int) -> bool:
    if done == job.total_steps:
        return True
    return job.evaluate_every is not None and done % job.evaluate_every == 0


def _evaluation(job: Job, step: int) -> EvalEvent:
    assert job.evaluate is not None
    start = time.perf_counter()
    measures = job.evaluate()
    return EvalEvent(step=step, measures=measures, seconds=time.perf_counter() - start)
