"""Memory that ran out in a run: what was planned beside what happened, and what would help."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtune import oom, plan
from qtune.errors import ResourceError
from qtune.plan import human
from qtune.run.shapes import shape_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from qtune.oom import OutOfMemory
    from qtune.plan import Plan
    from qtune.plan.plan import Switch
    from qtune.recipe.sections import Recipe
    from qtune.training import Progress

MOST = 3
# Settings that lower what is held outside of a pass over a micro-batch.
_SHARED = ("distributed.strategy", "distributed.offload")
_OF_THE_BASE = ("memory.base", "memory.dequantized_layers", *_SHARED)
_OUTSIDE = (*_OF_THE_BASE, "optim.name", "method.dtype")


def advise(
    error: OutOfMemory, asked: Recipe, decided: Plan, progress: Progress | None = None
) -> ResourceError:
    """The error with the plan's figure and the settings that lower the need of this recipe, those
    that cost least time first; `progress`: of a run that can go on."""
    oom.let_go(error)  # what follows needs some memory, too
    figures = f"{human(decided.device_bytes)} of {human(decided.budget_bytes)}"
    message = f"{error.told()}; planned were {figures}"
    helping = [*_helping(error, asked, decided, progress)] or ["a smaller model"]
    hint = f"what helps, cheapest first: {'; '.join(helping)}{_going_on(progress)}"
    return ResourceError(message, place="memory", hint=hint)


def _helping(
    error: OutOfMemory, asked: Recipe, decided: Plan, progress: Progress | None
) -> Iterator[str]:
    rows = (progress and progress.micro_batch_size) or decided.micro_batch_size
    if error.phase in oom.MEASURING:
        size = asked.eval.batch_size or rows
        if size > 1:
            yield f"eval.batch_size={size // 2}"
        if error.phase == oom.GENERATION:
            yield f"eval.max_new_tokens={max(1, asked.eval.max_new_tokens // 2)}"
        elif size == 1:
            yield f"data.max_length={asked.data.max_length // 2}"
        return
    keys = {oom.LOADING: _OF_THE_BASE, oom.STATES: _OUTSIDE, oom.UPDATE: _OUTSIDE}.get(error.phase)
    found = _switches(asked, decided, rows)
    chosen = [one for one in found if keys is None or one.key in keys]
    if progress and progress.step:  # states and adapters of another kind would not go on
        chosen = [one for one in chosen if one.key.startswith(("memory.", "distributed."))]
    for switch in cheapest(chosen, needed=error.asked or 0):
        yield _told(switch, decided)
    if not chosen and asked.quantization.bits > 4:
        yield "quantization.bits=4"


def _switches(asked: Recipe, decided: Plan, rows: int) -> Sequence[Switch]:
    """What each single change does, planned anew for how the run stands now."""
    return planned_anew(asked, decided, rows).switches


def planned_anew(asked: Recipe, decided: Plan, rows: int, **data: int) -> Plan:
    """The plan of what was decided, for micro-batches of `rows` and other settings of `data`."""
    values = {"micro_batch_size": rows, "activations": decided.activations, "base": decided.base}
    values["dequantized_layers"] = decided.dequantized_layers
    values["loss_chunk_size"] = decided.loss_chunk_size
    sections: dict[str, Any] = {
        "memory": asked.memory.model_copy(update=values),
        "data": asked.data.model_copy(update=data),
    }
    if decided.strategy != "none":
        shared = {"strategy": decided.strategy, "offload": decided.offload}
        sections["distributed"] = asked.distributed.model_copy(update=shared)
    shape, processes = shape_for(asked), decided.processes
    changed = asked.model_copy(update=sections)
    return plan.make(changed, decided.machine, shape, processes=processes)


def cheapest(switches: Sequence[Switch], *, needed: int) -> list[Switch]:
    """At most three that save something, one a key: those that save what is needed first, and of
    them those that cost least time; of a key that never saves so much, what saves most."""
    by_key: dict[str, list[Switch]] = {}
    for switch in switches:
        if switch.saves_bytes > 0:
            by_key.setdefault(switch.key, []).append(switch)
    chosen = [_one(group, needed) for group in by_key.values()]
    chosen.sort(key=lambda switch: (switch.saves_bytes < needed, switch.adds_seconds))
    return chosen[:MOST]


def _one(group: Sequence[Switch], needed: int) -> Switch:
    enough = [switch for switch in group if switch.saves_bytes >= needed]
    if enough:
        return min(enough, key=lambda switch: switch.adds_seconds)
    return max(group, key=lambda switch: switch.saves_bytes)


def _told(switch: Switch, decided: Plan) -> str:
    slower = switch.adds_seconds / decided.seconds_per_step
    time = f"{slower:.0%} slower" if slower >= 0.005 else "no slower"
    return f"{switch.key}={switch.value} (saves {human(switch.saves_bytes)}, {time})"


def _going_on(progress: Progress | None) -> str:
    if progress is None:
        return ""
    if not progress.step:
        return "; then --resume begins again"
    return f"; then --resume --allow-change memory goes on after step {progress.step}"
