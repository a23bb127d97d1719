"""What each single change of a plan costs and saves, for this recipe on this machine."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from qtune.plan.choices import PLAIN, Planner, why_whole
from qtune.plan.fused import fuses
from qtune.plan.memory import costs_of
from qtune.plan.plan import Switch
from qtune.plan.remedies import Setting, lighter_optimizer
from qtune.plan.work import Work
from qtune.recipe.methods import LowRankConfig

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qtune.plan.choices import Choice
    from qtune.plan.way import Way

CHUNKS = (256, 1024, 4096)


def switches(planner: Planner, chosen: Choice) -> Iterator[Switch]:
    """Every value of the plan exchanged alone, then what the recipe itself could change."""
    for key, value, way in _other_ways(planner, chosen.way):
        section = "distributed" if key in ("strategy", "offload") else "memory"
        yield _switch(f"{section}.{key}", value, planner, planner.weigh(way), chosen)
    for setting in _settings(planner):
        changed = setting.over(planner.costs.recipe)
        before = planner.costs
        costs = costs_of(changed, before.machine, before.shape, processes=before.processes)
        other = Planner(costs, Work.of(costs, planner.work.device), planner.budget)
        key = f"{setting.section}.{setting.key}"
        yield _switch(key, str(setting.value), other, other.weigh(chosen.way), chosen)


def _switch(key: str, value: str, planner: Planner, other: Choice, chosen: Choice) -> Switch:
    saves = chosen.device_bytes - other.device_bytes
    seconds = other.seconds - chosen.seconds
    return Switch(key, value, saves, seconds, planner.fits(other))


def _other_ways(planner: Planner, way: Way) -> Iterator[tuple[str, str, Way]]:
    """(key, value, way) of each neighbour of a way."""
    policies = [*PLAIN, "offload"] if planner.costs.machine.device == "cuda" else PLAIN
    for policy in policies:
        if policy != way.activations:
            yield "activations", policy, replace(way, activations=policy)
    for size in _next_sizes(planner, way.micro_batch_size):
        yield "micro_batch_size", str(size), replace(way, micro_batch_size=size)
    tokens = way.micro_batch_size * planner.costs.row_tokens
    for chunk in () if planner.costs.shape.classes else CHUNKS:
        if min(chunk, tokens) != min(way.loss_chunk_size, tokens):
            yield "loss_chunk_size", str(chunk), replace(way, loss_chunk_size=chunk)
    yield from _other_strategies(planner, way)
    if planner.costs.holding.bits == 4 and way.strategy != "fsdp":
        yield from _other_bases(way, planner.costs.layers.number)


def _other_strategies(planner: Planner, way: Way) -> Iterator[tuple[str, str, Way]]:
    if way.strategy == "fsdp":
        yield "strategy", "ddp", replace(way, strategy="ddp", offload=False)
        if planner.costs.machine.device == "cuda":
            yield "offload", str(not way.offload).lower(), replace(way, offload=not way.offload)
    elif way.strategy == "ddp" and way.base == "resident" and not why_whole(planner.costs):
        yield "strategy", "fsdp", replace(way, strategy="fsdp", dequantized_layers=0)


def _other_bases(way: Way, layers: int) -> Iterator[tuple[str, str, Way]]:
    if way.base == "stream":
        yield "base", "resident", replace(way, base="resident")
        return
    for value, number in (("0", 0), ("all", layers)):
        if number != way.dequantized_layers:
            yield "dequantized_layers", value, replace(way, dequantized_layers=number)
    if layers > 2:
        yield "base", "stream", replace(way, base="stream", dequantized_layers=0)


def _next_sizes(planner: Planner, size: int) -> Iterator[int]:
    """The next smaller and larger divisor of a process's rows."""
    rows = planner.costs.rows
    sizes = [each for each in range(1, rows + 1) if rows % each == 0]
    yield from [each for each in sizes if each < size][-1:]
    yield from [each for each in sizes if each > size][:1]


def _settings(planner: Planner) -> Iterator[Setting]:
    recipe = planner.costs.recipe
    if fuses(recipe, planner.costs.shape):
        yield Setting("memory", "kernels", "plain")
    if lighter := lighter_optimizer(recipe.optim.name, planner.costs.machine):
        yield Setting("optim", "name", lighter)
    if isinstance(recipe.method, LowRankConfig):
        other = "bfloat16" if recipe.method.dtype == "float32" else "float32"
        yield Setting("method", "dtype", other)
