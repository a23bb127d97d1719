"""`qtune train --dry-run --deep`: the longest batch and an update for real; nothing is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtune import models, oom, optim, recipe, training
from qtune.data.heaviest import heaviest
from qtune.errors import ResourceError
from qtune.oom import OutOfMemory, during
from qtune.plan import human
from qtune.run.display import Journal
from qtune.run.exhausted import advise, planned_anew
from qtune.run.labels import named
from qtune.run.memory import (
    compared,
    forget_peak,
    held_bytes,
    memory_line,
    most_held_bytes,
    peak_bytes,
)
from qtune.run.parts import predicted_parts
from qtune.run.prepare import run_folder
from qtune.run.resume import BEGIN
from qtune.run.train import loaded_learner, make_job, settle

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from qtune.run.display import Display
    from qtune.run.parts import Part
    from qtune.run.prepare import Learner
    from qtune.run.train import Settled


def deep_run(
    path: str | Path, *, overrides: Sequence[str] = (), display: Display
) -> dict[str, Any]:
    """Load everything, run the longest batch forward and backward, update once; returns the plan
    with its parts measured. `ResourceError` when memory runs out, or more of it is taken than the
    budget has."""
    journal = Journal(display)
    loaded = named(recipe.load(path, overrides))
    folder = run_folder(loaded)
    folder.check()
    settled = settle(loaded, folder, BEGIN, journal)
    pupil = loaded_learner(settled, journal)
    job = make_job(settled, pupil, journal, training.StopRequest())
    try:
        shape, measured = tried(job, pupil)
    except OutOfMemory as error:
        raise advise(error, settled.asked, settled.plan) from error
    memory = compared(settled.plan.device_bytes, peak_bytes())
    tokens = " x ".join(f"{size:,}" for size in shape)
    journal.line(f"the longest batch went through, {tokens} tokens, and an update")
    journal.line(memory_line(memory))
    if memory["measured_peak_bytes"] > settled.plan.budget_bytes:
        raise ResourceError(
            f"the longest batch took {human(peak_bytes())}, and "
            f"{human(settled.plan.budget_bytes)} are there",
            place="memory",
            hint="plan for less with memory.budget, or see qtune plan --suggest",
        )
    journal.line(f"dry run: {loaded.name} can start; nothing was written")
    return {
        "plan": settled.plan.to_dict(),
        "data": settled.prepared.report.to_dict(),
        "batch": {"rows": shape[0], "length": shape[1]},
        "memory": memory | {"parts": _parts(settled, shape, measured)},
    }


def tried(job: training.Job, pupil: Learner) -> tuple[tuple[int, int], dict[str, int]]:
    """The shape of the longest batch, and what the parts that can be told apart took."""
    batch = heaviest(job.feed, job.total_steps, start=job.start).batch
    parameters = pupil.method.parameters().values()
    inventory = models.inventory(pupil.base.model)
    adapter = sum(parameter.nbytes for parameter in parameters)
    job.model.train()
    forget_peak()
    with during(oom.STATES), optim.states_held(job.optimizer):
        before = held_bytes()
        training.accumulate(job.model, job.loss, [batch], batch.supervised)
        taken = most_held_bytes() - before
        gradients = sum(one.grad.nbytes for one in parameters if one.grad is not None)
    with during(oom.UPDATE):
        job.optimizer.step()
    rows, length = batch.input_ids.shape
    return (rows, length), {
        "the base": inventory.bytes - adapter,
        "trained parameters": adapter,
        "gradients": gradients,
        "optimizer states": optim.state_bytes(job.optimizer),
        "the longest batch": taken - gradients,
    }


def _parts(settled: Settled, shape: tuple[int, int], measured: dict[str, int]) -> list[Part]:
    """Each part as planned and as measured; the longest batch as it would be planned, too."""
    rows, length = shape
    here = planned_anew(settled.asked, settled.plan, rows, max_length=length)
    largest, real = predicted_parts(settled.plan), predicted_parts(here)
    predicted = largest | {"the longest batch": real["the longest batch"]}
    predicted["the longest there may be"] = largest["the longest batch"]
    return [
        {"part": part, "predicted_bytes": size, "measured_bytes": measured.get(part)}
        for part, size in predicted.items()
    ]
