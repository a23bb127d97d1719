"""The longest batch runs first: memory that is not enough is found in the first seconds."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from qtune import oom
from qtune.oom import during
from qtune.optim import states_held
from qtune.training.events import RehearsalEvent
from qtune.training.state import random_state, set_random_state
from qtune.training.step import accumulate

if TYPE_CHECKING:
    from qtune.data.batch import Batch
    from qtune.data.heaviest import Heaviest
    from qtune.training.loop import Job

# A CPU computes at most this share of a run twice. A GPU always does: a pass takes it a second, and
# what it lacks ends the run at once, while a host begins to swap or is cleared up by the system.
CPU_SHARE = 0.02


def is_worth_it(job: Job, found: Heaviest) -> bool:
    """Whether a rehearsal costs little enough time."""
    on_cpu = next(job.model.parameters()).device.type == "cpu"
    return not on_cpu or found.share <= CPU_SHARE


def rehearse(job: Job, batch: Batch) -> RehearsalEvent:
    """Forward and backward pass of the micro-batch that takes the most memory, beside the states
    of the optimizer.

    No weight, gradient or random generator is other than before: the run does not know of it.
    `OutOfMemory` says what did not fit.
    """
    begun = time.perf_counter()
    random, training = random_state(), job.model.training
    job.model.train()
    try:
        with during(oom.STATES), states_held(job.optimizer):
            accumulate(job.model, job.loss, [batch], batch.supervised)
    finally:
        job.optimizer.zero_grad(set_to_none=True)
        set_random_state(random)
        job.model.train(training)
    rows, length = batch.input_ids.shape
    seconds = time.perf_counter() - begun
    return RehearsalEvent(step=job.start, rows=rows, length=length, seconds=seconds)
