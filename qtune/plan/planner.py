"""Recipe + machine + model shape -> plan: the fastest choice that fits, and why."""

from __future__ import annotations

from dataclasses import replace
from math import ceil
from typing import TYPE_CHECKING

from qtune.plan.choices import Choice, Planner
from qtune.plan.decisions import Verdict
from qtune.plan.devices import device_of
from qtune.plan.disk import disk_of
from qtune.plan.distribution import Distribution, distribution, fewest_devices
from qtune.plan.memory import Costs, costs_of
from qtune.plan.plan import PAGED_OUT, MemoryItem, Plan, Remedy
from qtune.plan.refusals import refuse_holding, refuse_model
from qtune.plan.remedies import remedies
from qtune.plan.steps import schedule
from qtune.plan.switches import switches
from qtune.plan.work import Work
from qtune.sizes import parse_size

if TYPE_CHECKING:
    from qtune.plan.machine import Machine
    from qtune.plan.shape import ModelShape
    from qtune.recipe.sections import Recipe


def make(
    recipe: Recipe,
    machine: Machine,
    shape: ModelShape,
    *,
    rows: int | None = None,
    processes: int = 1,
) -> Plan:
    """Plan a recipe; never raises because it does not fit, see `Plan.check`.

    `processes`: that train together, one a device; the machine is what one of them has.
    """
    refuse_model(recipe, shape)
    costs = costs_of(recipe, machine, shape, processes=processes)
    refuse_holding(costs)
    planner = planner_of(costs, budget_of(recipe, machine))
    choices = planner.choices()
    chosen = planner.choose(choices)
    way = chosen.way
    verdict = Verdict(planner, choices, chosen)
    fits = planner.fits(chosen)
    return Plan(
        machine=machine,
        memory=_place_states(chosen),
        decisions=tuple(verdict.decisions()),
        processes=processes,
        strategy=way.strategy,
        offload=way.offload,
        micro_batch_size=way.micro_batch_size,
        gradient_accumulation_steps=ceil(costs.rows / way.micro_batch_size),
        activations=way.activations,
        base=way.base,
        dequantized_layers=way.dequantized_layers,
        loss_chunk_size=way.loss_chunk_size,
        optimizer=verdict.optimizer,
        trainable_parameters=sum(tensor.elements for tensor in costs.tensors),
        total_parameters=shape.total_parameters,
        adapter_bytes=(adapter := costs.adapter_bytes),
        checkpoint_bytes=adapter + costs.states.total(costs.tensors),
        disk=tuple(disk_of(costs, chosen)),
        steps=None if rows is None else schedule(recipe, rows, image_tokens=shape.image_tokens),
        device_bytes=chosen.device_bytes - chosen.paged,
        host_bytes=chosen.host_bytes + chosen.paged,
        budget_bytes=planner.budget,
        fits=fits,
        device=planner.work.device.name,
        estimate=chosen.estimate,
        seconds_per_step=chosen.seconds,
        tokens_per_second=chosen.estimate.tokens_per_second,
        next_best=verdict.next_best(),
        distribution=_distribution(planner, chosen),
        switches=tuple(switches(planner, chosen)),
        remedies=() if fits else _remedies(costs),
        fits_on=None if fits else _more_devices(planner),
    )


def _distribution(planner: Planner, chosen: Choice) -> Distribution | None:
    """What several devices send one another, and gain over one alone; None with one."""
    costs = planner.costs
    if costs.processes == 1:
        return None
    machine = costs.machine.alone()
    alone = costs_of(costs.recipe, machine, costs.shape)
    one = planner_of(alone, budget_of(costs.recipe, machine))
    best = one.choose(one.choices())
    passes = ceil(costs.rows / chosen.way.micro_batch_size)
    return distribution(planner, chosen, best if one.fits(best) else None, passes=passes)


def _remedies(costs: Costs) -> tuple[Remedy, ...]:
    """What would make it fit."""
    machine, shape, processes = costs.machine, costs.shape, costs.processes
    return remedies(
        costs.recipe, machine, least=lambda changed: least(changed, machine, shape, processes)
    )


def _more_devices(planner: Planner) -> int | None:
    """How many such devices would have room for it together, none for a CPU, which has one memory;
    host memory is not looked at."""
    costs = planner.costs
    if costs.machine.device == "cpu":
        return None
    device = replace(costs.machine, host_memory=0)

    def fits(processes: int) -> bool:
        return least(costs.recipe, device, costs.shape, processes) <= planner.budget

    return fewest_devices(costs.processes, fits)


def planner_of(costs: Costs, budget: int) -> Planner:
    """What weighs the ways to run a recipe on the machine of its costs."""
    return Planner(costs, Work.of(costs, device_of(costs.machine)), budget)


def least(recipe: Recipe, machine: Machine, shape: ModelShape, processes: int) -> int:
    """The fewest device bytes a recipe can do with on this machine."""
    costs = costs_of(recipe, machine, shape, processes=processes)
    return planner_of(costs, budget_of(recipe, machine)).least_bytes()


def budget_of(recipe: Recipe, machine: Machine) -> int:
    """Bytes the run may use: the recipe's budget, and never more than the device has."""
    if recipe.memory.budget is None:
        return machine.device_memory
    return min(parse_size(recipe.memory.budget, place="memory.budget"), machine.device_memory)


def _place_states(choice: Choice) -> tuple[MemoryItem, ...]:
    """The table, with the optimizer states that the device lacks room for in host memory."""
    paged = choice.paged
    if not paged:
        return choice.items
    on_device = (
        replace(item, bytes=item.bytes - paged) if item.part == "optimizer states" else item
        for item in choice.items
    )
    reason = "move to the device for each update and back"
    return (*on_device, MemoryItem(PAGED_OUT, paged, "host", reason))
