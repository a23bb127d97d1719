"""Recipe + machine + model shape -> plan: the fastest choice that fits, and why."""

from __future__ import annotations

from dataclasses import replace
from math import ceil
from typing import TYPE_CHECKING

from qtune.errors import UsageError
from qtune.plan.adapters import saved_modules
from qtune.plan.choices import Choice, choices_of, choose
from qtune.plan.decisions import Verdict
from qtune.plan.memory import Costs, costs_of, loss_chunk_size
from qtune.plan.plan import MemoryItem, Plan
from qtune.plan.remedies import remedies
from qtune.plan.sizes import parse_size
from qtune.plan.steps import schedule
from qtune.plan.targets import is_within
from qtune.recipe.methods import LoraConfig

if TYPE_CHECKING:
    from qtune.plan.machine import Machine
    from qtune.plan.shape import ModelShape
    from qtune.recipe.sections import Recipe


def make(recipe: Recipe, machine: Machine, shape: ModelShape, *, rows: int | None = None) -> Plan:
    """Plan a recipe; never raises because it does not fit, see `Plan.check`."""
    refuse_attention(recipe, shape)
    costs = costs_of(recipe, machine, shape)
    refuse_quantized_copies(costs)
    budget = budget_of(recipe, machine)
    choices = tuple(choices_of(costs))
    chosen = choose(choices, costs, budget)
    paged = min(costs.pageable, max(0, chosen.device_bytes - budget))
    verdict = Verdict(costs, choices, chosen, budget, paged)
    fits = chosen.device_bytes - paged <= budget
    return Plan(
        machine=machine,
        memory=_place_states(chosen, paged),
        decisions=tuple(verdict.decisions()),
        micro_batch_size=chosen.micro_batch_size,
        gradient_accumulation_steps=ceil(recipe.train.batch_size / chosen.micro_batch_size),
        activations=chosen.policy,
        base="stream" if recipe.memory.base == "stream" else "resident",
        dequantized_layers=dequantized_layers(recipe, shape),
        loss_chunk_size=loss_chunk_size(recipe),
        optimizer=verdict.optimizer,
        trainable_parameters=sum(tensor.elements for tensor in costs.tensors),
        total_parameters=shape.total_parameters,
        adapter_bytes=(adapter := sum(tensor.size for tensor in costs.tensors)),
        checkpoint_bytes=adapter + costs.states.total(costs.tensors),
        steps=None if rows is None else schedule(recipe, rows),
        device_bytes=chosen.device_bytes - paged,
        budget_bytes=budget,
        fits=fits,
        remedies=()
        if fits
        else remedies(recipe, machine, least=lambda changed: least(changed, machine, shape)),
    )


def dequantized_layers(recipe: Recipe, shape: ModelShape) -> int:
    """Layers whose weights are also kept unfolded."""
    wish = recipe.memory.dequantized_layers
    if wish == "auto":
        return 0
    return shape.layers if wish == "all" else min(wish, shape.layers)


def least(recipe: Recipe, machine: Machine, shape: ModelShape) -> int:
    """The fewest device bytes a recipe can do with on this machine."""
    return min(choice.least_bytes for choice in choices_of(costs_of(recipe, machine, shape)))


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


def refuse_quantized_copies(costs: Costs) -> None:
    """`UsageError` when a module to train whole holds quantised weights."""
    method = costs.recipe.method
    if not isinstance(method, LoraConfig):
        return
    for module in saved_modules(method, costs.shape):
        for linear in costs.shape.linears:
            if is_within(linear.name, module) and costs.holding.quantizes(linear):
                raise UsageError(
                    f"{module} holds quantised weights, which cannot be trained",
                    place="method.modules_to_save",
                    hint=f"add {linear.name.rpartition('.')[2]} to quantization.skip_modules",
                )


def _place_states(choice: Choice, paged: int) -> tuple[MemoryItem, ...]:
    """The table, with the optimizer states that the device lacks room for in host memory."""
    if not paged:
        return choice.items
    on_device = (
        replace(item, bytes=item.bytes - paged) if item.part == "optimizer states" else item
        for item in choice.items
    )
    reason = "move to the device for each update and back"
    return (*on_device, MemoryItem("optimizer states, paged out", paged, "host", reason))
