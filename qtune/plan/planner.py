"""Recipe + machine + model shape -> plan: the fastest choice that fits, and why."""

from __future__ import annotations

from dataclasses import replace
from math import ceil
from typing import TYPE_CHECKING

from qtune.errors import UsageError
from qtune.plan.adapters import saved_modules
from qtune.plan.choices import Choice, Planner, why_whole
from qtune.plan.decisions import Verdict
from qtune.plan.devices import device_of
from qtune.plan.disk import disk_of
from qtune.plan.distribution import distribution, fewest_devices
from qtune.plan.memory import Costs, costs_of
from qtune.plan.plan import PAGED_OUT, MemoryItem, Plan
from qtune.plan.remedies import remedies
from qtune.plan.selective import trained_weights
from qtune.plan.sizes import parse_size
from qtune.plan.steps import schedule
from qtune.plan.switches import switches
from qtune.plan.targets import is_within
from qtune.plan.work import Work
from qtune.recipe.methods import LowRankConfig, SelectiveConfig, parts_of

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
    refuse_attention(recipe, shape)
    refuse_length(recipe, shape)
    costs = costs_of(recipe, machine, shape, processes=processes)
    refuse_quantized_copies(costs)
    refuse_base(costs)
    refuse_strategy(costs)
    planner = planner_of(costs, budget_of(recipe, machine))
    choices = planner.choices()
    chosen = planner.choose(choices)
    way = chosen.way
    verdict = Verdict(planner, choices, chosen)
    fits, passes = planner.fits(chosen), ceil(costs.rows / way.micro_batch_size)
    return Plan(
        machine=machine,
        memory=_place_states(chosen),
        decisions=tuple(verdict.decisions()),
        processes=processes,
        strategy=way.strategy,
        offload=way.offload,
        micro_batch_size=way.micro_batch_size,
        gradient_accumulation_steps=passes,
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
        distribution=None
        if processes == 1
        else distribution(planner, chosen, _alone(planner), passes=passes),
        switches=tuple(switches(planner, chosen)),
        remedies=()
        if fits
        else remedies(
            recipe, machine, least=lambda changed: least(changed, machine, shape, processes)
        ),
        fits_on=None if fits else _more_devices(planner),
    )


def _alone(planner: Planner) -> Choice | None:
    """How one of the devices would run it alone; None where it has no room for it."""
    costs = planner.costs
    one = planner_of(costs_of(costs.recipe, costs.machine, costs.shape), planner.budget)
    best = one.choose(one.choices())
    return best if one.fits(best) else None


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


def refuse_attention(recipe: Recipe, shape: ModelShape) -> None:
    """`UsageError` when transformers has no such attention for the family."""
    if recipe.model.attn_implementation == "sdpa" and not shape.sdpa:
        raise UsageError(
            f"transformers runs {shape.family} without sdpa",
            place="model.attn_implementation",
            hint="set it to eager",
        )


def refuse_length(recipe: Recipe, shape: ModelShape) -> None:
    """`UsageError` for rows with more tokens than an encoder has positions."""
    if shape.encoder and shape.max_positions and recipe.data.max_length > shape.max_positions:
        raise UsageError(
            f"{recipe.data.max_length:,} tokens, {shape.family} has {shape.max_positions:,} "
            "positions",
            place="data.max_length",
            hint=f"set it to {shape.max_positions}, and data.overlong: truncate_end",
        )


def refuse_base(costs: Costs) -> None:
    """`UsageError` for a base that cannot be held as the recipe asks."""
    memory, four = costs.recipe.memory, costs.holding.bits == 4 and costs.layers.number > 0
    if memory.base == "stream" and not (four and costs.layers.number > 2):
        raise UsageError(
            "only 4-bit layers are streamed, three of them or more",
            place="memory.base",
            hint="set quantization.bits: 4, or memory.base: resident",
        )
    if memory.dequantized_layers in ("auto", 0):
        return
    if memory.base == "stream" or not four:
        what = "layers that are streamed" if four else "weights that are not in 4 bits"
        raise UsageError(f"{what} are not kept unfolded", place="memory.dequantized_layers")


def refuse_strategy(costs: Costs) -> None:
    """`UsageError` for layers that cannot be shared out, where the recipe wants that."""
    reason = why_whole(costs)
    if costs.processes > 1 and costs.recipe.distributed.strategy == "fsdp" and reason:
        raise UsageError(
            f"cannot be fsdp: {reason}", place="distributed.strategy", hint="set it to ddp or auto"
        )


def refuse_quantized_copies(costs: Costs) -> None:
    """`UsageError` when a module to train whole holds quantised weights."""
    parts = [part for part in parts_of(costs.recipe.method) if isinstance(part, LowRankConfig)]
    for module in (name for part in parts for name in saved_modules(part, costs.shape)):
        for linear in costs.shape.linears:
            if is_within(linear.name, module) and costs.holding.quantizes(linear):
                raise UsageError(
                    f"{module} holds quantised weights, which cannot be trained",
                    place="method.modules_to_save",
                    hint=f"add {linear.name.rpartition('.')[2]} to quantization.skip_modules",
                )
    for part in parts_of(costs.recipe.method):
        names = trained_weights(part, costs.shape) if isinstance(part, SelectiveConfig) else ()
        linears = {linear.name: linear for linear in costs.shape.linears}
        for name in names:
            if costs.holding.quantizes(linears[name]):
                raise UsageError(
                    f"{name} is quantised, and a quantised matrix cannot be trained",
                    place="method.parts",
                    hint="take the 16-bit model" if costs.holding.already else "",
                )


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
