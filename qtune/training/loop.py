"""The loop: optimizer steps and evaluations, told as events.

`fit` knows no files, screens or trackers: whoever consumes its events logs, draws and saves while
the loop waits.
"""

from __future__ import annotations

import time
from collections import deque
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qtune import oom
from qtune.data.heaviest import heaviest
from qtune.oom import OutOfMemory, during
from qtune.optim import set_learning_rate
from qtune.training.events import Boundary, EvalEvent, StepEvent
from qtune.training.rehearsal import is_worth_it, rehearse
from qtune.training.shrinking import shrink, take_back
from qtune.training.signals import Interrupted
from qtune.training.state import random_state
from qtune.training.step import Counts, Learning, Outcome, train_step
from qtune.training.supply import Supply

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from qtune.data.batch import Batch
    from qtune.data.feed import Feed, StreamFeed
    from qtune.training.events import Event, Measures


MOST_RUNNING = 1
"""Steps that a device may be behind the host."""


@dataclass(frozen=True, kw_only=True)
class Job(Learning):
    """Everything one training run needs.

    `start`: optimizer steps that are done already. `evaluate_first`: measure before the next step.
    `evaluate` may raise `Interrupted`. `rehearse`: the longest micro-batch runs first, for nothing
    but its memory. `shrinks`: a step that lacks memory is done again in smaller micro-batches.
    `due`: whether somebody has something to do at the end of a step; else there is a `Boundary`
    only if the device has kept up, and none where several processes would have to keep up alike.
    """

    schedule: Callable[[int], float]
    feed: Feed | StreamFeed
    total_steps: int
    steps_per_epoch: int
    evaluate: Callable[[], Measures] | None = None
    evaluate_first: bool = True
    evaluate_every: int | None = None
    start: int = 0
    rehearse: bool = False
    shrinks: bool = False
    due: Callable[[int], bool] = lambda _: True


def fit(job: Job) -> Iterator[Event]:
    """Train from `start` to `total_steps`, evaluating first, at intervals and last.

    An evaluation, and a step at which something is due, ends with a `Boundary`; after one whose
    evaluation was interrupted nothing follows. The event of a step comes when the device has done
    it, which may be while the next one runs.
    """
    with closing(Supply(job.feed, job.total_steps, start=job.start)) as supply:
        if job.rehearse:
            yield from _rehearsal(job, supply)
        if job.evaluate is not None and job.evaluate_first:
            evaluation = _evaluation(job, job.start)
            if evaluation is not None:
                yield evaluation
            yield Boundary(step=job.start, evaluated=evaluation is not None)
            if evaluation is None:
                return
        job.model.train()
        yield from _steps(job, supply)


def _rehearsal(job: Job, supply: Supply) -> Iterator[Event]:
    """The longest micro-batch, or the longest that there is memory for."""
    if job.start >= job.total_steps:
        return
    found = heaviest(supply.feed, job.total_steps, start=job.start)
    if not is_worth_it(job, found):
        return
    while True:
        random = random_state()
        try:
            event = rehearse(job, found.batch)
            break
        except OutOfMemory as error:
            take_back(error, job.optimizer, random)
            shrunk = shrink(error, supply, step=job.start, allowed=job.shrinks)
        yield shrunk
        found = heaviest(supply.feed, job.total_steps, start=job.start)
    yield event


def _steps(job: Job, supply: Supply) -> Iterator[Event]:
    running: deque[_Running] = deque()
    clock = _Clock()
    for step, micro_batches in supply:
        # while the step before still runs, nobody waits
        waited = supply.waited if not running or running[-1].outcome.ready() else 0.0
        counts = Counts.of(micro_batches, job.ranks)
        attempt = _attempt(job, step, micro_batches, counts, waited=waited)
        while isinstance(attempt, OutOfMemory):
            while running:  # they are whole, whatever became of this one
                yield _told(job, running.popleft(), clock)
            yield shrink(attempt, supply, step=step, allowed=job.shrinks)
            smaller = supply.again()
            counts, micro_batches = counts.split_anew(micro_batches, smaller), smaller
            attempt = _attempt(job, step, micro_batches, counts)
        running.append(attempt)
        due = job.due(step + 1)  # asked at every step, for all processes answer together
        wait = due or _evaluation_due(job, step + 1)
        while running and (wait or len(running) > MOST_RUNNING or running[0].outcome.ready()):
            yield _told(job, running.popleft(), clock)
        if running or not (wait or job.ranks.alone):  # nobody needs the device to be still
            continue
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


@dataclass(frozen=True)
class _Running:
    """A step that the device may still be at; `start`: when its rows were asked for."""

    step: int
    start: float
    waited: float
    learning_rate: float
    outcome: Outcome


class _Clock:
    """When the last step was done: steps overlap, their times must not."""

    def __init__(self) -> None:
        self.done = 0.0

    def seconds(self, start: float) -> float:
        """The time of a step that began at `start`, without that of the one before."""
        former, self.done = self.done, time.perf_counter()
        return self.done - max(start, former)


def _attempt(
    job: Job, step: int, micro_batches: Sequence[Batch], counts: Counts, *, waited: float = 0.0
) -> _Running | OutOfMemory:
    """The step, given to the device; or why there is no memory for it, and nothing was begun."""
    random = random_state()
    try:
        with during(oom.UPDATE):  # what is no pass over a micro-batch
            return _launch(job, step, micro_batches, counts, waited)
    except OutOfMemory as error:
        take_back(error, job.optimizer, random)
        return error


def _launch(
    job: Job, step: int, micro_batches: Sequence[Batch], counts: Counts, waited: float
) -> _Running:
    start = time.perf_counter() - waited
    learning_rate = set_learning_rate(job.optimizer, job.schedule(step))
    outcome = train_step(job, micro_batches, step=step, counts=counts)
    return _Running(step, start, waited, learning_rate, outcome)


def _told(job: Job, running: _Running, clock: _Clock) -> StepEvent:
    result = running.outcome.settle()
    return StepEvent(
        step=running.step + 1,
        total=job.total_steps,
        epoch=(running.step + 1) / job.steps_per_epoch,
        loss=result.loss,
        grad_norm=result.grad_norm,
        learning_rate=running.learning_rate,
        tokens=result.counts.tokens,
        supervised=result.counts.supervised,
        computed=result.counts.computed,
        shared=result.counts.shared,
        seconds=clock.seconds(running.start),
        waited=running.waited,
        joining=result.joining,
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
