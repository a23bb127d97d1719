"""The loop: optimizer steps and evaluations, told as events.

`fit` knows no files, screens or trackers: whoever consumes its events logs, draws and saves while
the loop waits.
"""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from qtune.optim import set_learning_rate
from qtune.training.events import Boundary, EvalEvent, StepEvent
from qtune.training.signals import Interrupted
from qtune.training.step import Loss, StepResult, train_step
from qtune.training.watch import Watchdog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch.optim import Optimizer

    from qtune.data.batch import Batch
    from qtune.data.feed import Feed, StreamFeed
    from qtune.methods.base import Method
    from qtune.training.events import Event, Measures


@dataclass(frozen=True, kw_only=True)
class Job:
    """Everything one training run needs.

    `start`: optimizer steps that are done already. `evaluate_first`: measure before the next step.
    `evaluate` may raise `Interrupted`.
    """

    model: Any
    method: Method
    loss: Loss
    optimizer: Optimizer
    schedule: Callable[[int], float]
    feed: Feed | StreamFeed
    total_steps: int
    steps_per_epoch: int
    max_grad_norm: float
    watchdog: Watchdog = field(default_factory=Watchdog)
    evaluate: Callable[[], Measures] | None = None
    evaluate_first: bool = True
    evaluate_every: int | None = None
    start: int = 0


def fit(job: Job) -> Iterator[Event]:
    """Train from `start` to `total_steps`, evaluating first, at intervals and last.

    A step, or an evaluation at the start, ends with a `Boundary`; after one whose evaluation was
    interrupted nothing follows.
    """
    if job.evaluate is not None and job.evaluate_first:
        evaluation = _evaluation(job, job.start)
        if evaluation is not None:
            yield evaluation
        yield Boundary(step=job.start, evaluated=evaluation is not None)
        if evaluation is None:
            return
    job.model.train()
    with closing(job.feed.steps(job.total_steps, start=job.start)) as steps:
        yield from _steps(job, steps)


def _steps(job: Job, steps: Iterator[list[Batch]]) -> Iterator[Event]:
    for step, micro_batches in enumerate(steps, job.start):
        yield _step(job, step, micro_batches)
        evaluated = True
        if job.evaluate is not None and _evaluation_due(job, step + 1):
            evaluation = _evaluation(job, step + 1)
            evaluated = evaluation is not None
            if evaluation is not None:
                yield evaluation
            job.model.train()
        last = evaluated and step + 1 == job.total_steps
        yield Boundary(step=step + 1, evaluated=evaluated, last=last)
        if not evaluated:
            return


def _step(job: Job, step: int, micro_batches: Sequence[Batch]) -> StepEvent:
    start = time.perf_counter()
    learning_rate = set_learning_rate(job.optimizer, job.schedule(step))
    result: StepResult = train_step(
        job.model,
        job.loss,
        job.method,
        job.optimizer,
        micro_batches,
        step=step,
        max_grad_norm=job.max_grad_norm,
        watchdog=job.watchdog,
    )
    return StepEvent(
        step=step + 1,
        total=job.total_steps,
        epoch=(step + 1) / job.steps_per_epoch,
        loss=result.loss,
        grad_norm=result.grad_norm,
        learning_rate=learning_rate,
        tokens=result.tokens,
        supervised=result.supervised,
        computed=result.computed,
        seconds=time.perf_counter() - start,
    )


def _evaluation_due(job: Job, done: int) -> bool:
    if done == job.total_steps:
        return True
    return job.evaluate_every is not None and done % job.evaluate_every == 0


def _evaluation(job: Job, step: int) -> EvalEvent | None:
    """The measures after a step; None when a signal interrupted it."""
    assert job.evaluate is not None
    start = time.perf_counter()
    try:
        measures = job.evaluate()
    except Interrupted:
        return None
    return EvalEvent(step=step, measures=measures, seconds=time.perf_counter() - start)
