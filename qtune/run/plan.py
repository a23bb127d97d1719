"""`qtune plan`: what a recipe would take, before anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from qtune import plan as plans
from qtune import recipe as recipes
from qtune.errors import UsageError
from qtune.plan import Machine, Plan, parse_size
from qtune.run.labels import named
from qtune.run.shapes import shape_and_note, with_bridge, with_teacher

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from qtune.recipe import Loaded


@dataclass(frozen=True)
class Planned:
    """A plan, and how its rows were counted."""

    name: str
    model: str
    plan: Plan
    rows: int | None
    rows_reason: str
    sizes: str = ""
    """Where the model's sizes come from, when not from its own config.json."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        rows = {"count": self.rows, "reason": self.rows_reason}
        named = {"recipe": self.name, "model": self.model, "sizes": self.sizes, "rows": rows}
        return named | self.plan.to_dict()


def card_of(text: str) -> Machine:
    """A card by its size (24GB) or its name (RTX 4090); `UsageError` for neither."""
    known = plans.card(text)
    if known is None:
        return Machine.gpu(_size_of(text))
    gigabytes, device = known
    return replace(Machine.gpu(gigabytes * 10**9), name=device.name)


def _size_of(text: str) -> int:
    """Bytes of a size; what is neither that nor a card is held against the names of cards."""
    try:
        return parse_size(text, place="--gpu")
    except UsageError:
        meant = "" if text.isdecimal() else plans.alike(text)
        if not meant:
            raise
        message = f"{text!r} is not a size, nor a card that qtune knows"
        raise UsageError(message, place="--gpu", hint=f"did you mean {meant}?") from None


def plan(
    path: Path,
    *,
    overrides: Sequence[str] = (),
    gpu: str | None = None,
    processes: int = 1,
    machines: int = 1,
) -> Planned:
    """Plan a recipe for a given card or this machine; no torch, no weights, no rows kept.

    `processes`: that train together, one a device, as many on each of `machines` alike.
    """
    each, rest = divmod(processes, machines)
    if rest:
        raise UsageError(
            f"{processes} processes are not as many on each of {machines} machines",
            place="--machines",
            hint="--processes counts those of all machines together",
        )
    machine = Machine.probe_for(each) if gpu is None else card_of(gpu).share(each)
    return plan_for(recipes.load(path, overrides), machine, processes)


def plan_for(loaded: Loaded, machine: Machine, processes: int = 1) -> Planned:
    """Plan a recipe that was read for a machine, or what each of some processes has of it."""
    loaded = named(loaded)
    recipe = loaded.recipe
    shape, note = shape_and_note(recipe.model)
    shape = with_teacher(recipe, with_bridge(recipe, shape), published=True)
    plans.refuse_lengths(recipe, shape)
    counted = plans.count_rows(recipe.data)
    made = plans.make(recipe, machine, shape, rows=counted.rows, processes=processes)
    return Planned(
        name=loaded.name,
        model=recipe.model.name_or_path,
        plan=made,
        rows=counted.rows,
        rows_reason=counted.reason,
        sizes=note,
    )


@dataclass(frozen=True)
class Suggested:
    """Changes of a recipe, and the plan that was made with them."""

    text: str
    settings: tuple[str, ...]
    plan: Plan

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        made = self.plan
        return {
            "fits": made.fits,
            "settings": list(self.settings),
            "yaml": self.text,
            "device_bytes": made.device_bytes,
            "budget_bytes": made.budget_bytes,
            "seconds_per_step": made.seconds_per_step,
        }


def suggest(
    path: Path, planned: Planned, *, overrides: Sequence[str] = (), gpu: str | None = None
) -> Suggested | None:
    """What to change in a recipe that does not fit, planned anew with it; None where nothing helps
    or nothing needs to."""
    found = plans.suggestion(planned.plan)
    if found is None:
        return None
    changed, processes = (*overrides, *found.settings), planned.plan.processes
    machines = processes // (planned.plan.machine.seats or processes)
    made = plan(path, overrides=changed, gpu=gpu, processes=processes, machines=machines).plan
    share = f"{plans.human(made.device_bytes)} of {plans.human(made.budget_bytes)}"
    speed = f"about {plans.duration(made.seconds_per_step)} a step"
    lines = [f"# planned with it on {made.machine.name}: {share}, {speed}\n", found.yaml()]
    lines += [f"# or {' with '.join(each)}\n" for each in found.others]
    return Suggested("".join(lines), found.settings, made)
