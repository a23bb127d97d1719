"""The ways a recipe could run on a machine, what each takes, and the one to take."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING

from qtune.plan.memory import LOSS_CHUNK, Costs
from qtune.plan.way import Way
from qtune.recipe.methods import BridgeConfig, parts_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from qtune.plan.plan import MemoryItem, Strategy
    from qtune.plan.work import Estimate, Work
    from qtune.recipe.steps import ActivationPolicy, Base

Home = tuple["Strategy", "Base", bool]
"""Who holds the frozen layers, where, and whether shares of them wait in host memory."""
# Above so many tokens a pass, a larger micro-batch gains nothing worth its memory.
ENOUGH_TOKENS = {"cuda": 16_384, "cpu": 4_096}
LOSS_CHUNKS = (LOSS_CHUNK, 256)
PLAIN: tuple[ActivationPolicy, ...] = ("none", "selective", "layer")
# Unfolded copies take what is left of this share of the budget.
SAFE_SHARE = 0.95
AS_FAST = 1.02


def why_whole(costs: Costs) -> str:
    """Why no device may hold a share of the layers alone; empty if it may."""
    memory = costs.recipe.memory
    if costs.holding.bits != 4 or not costs.layers.number:
        return "only 4-bit layers are shared out"
    if memory.base == "stream":
        return "layers that are streamed are not shared out"
    if memory.dequantized_layers not in ("auto", 0):
        return "layers that are kept unfolded are not shared out"
    if memory.on_oom == "shrink":
        return "processes that share layers go in step, and memory.on_oom: shrink does not"
    return ""


@dataclass(frozen=True)
class Choice:
    """One way to run, what it takes, and how long a step is."""

    way: Way
    items: tuple[MemoryItem, ...]
    device_bytes: int
    """With all optimizer states on the device."""
    host_bytes: int
    """Beside the optimizer states that move."""
    paged: int
    """Bytes of optimizer states that must wait in host memory."""
    pageable: int
    estimate: Estimate

    @property
    def least_bytes(self) -> int:
        """With all states that may move in host memory."""
        return self.device_bytes - self.pageable

    @property
    def seconds(self) -> float:
        """Of one optimizer step."""
        return self.estimate.seconds


@dataclass(frozen=True)
class Planner:
    """Weighs ways to run one recipe within a budget of device memory."""

    costs: Costs
    work: Work
    budget: int

    def weigh(self, way: Way) -> Choice:
        """What one way takes; states page out where the device is too small for them."""
        costs = self.costs
        items = tuple(costs.items(way))
        device = sum(item.bytes for item in items if item.where == "device")
        host = sum(item.bytes for item in items if item.where == "host")
        pageable = costs.pageable
        if costs.machine.host_memory:
            pageable = min(pageable, max(0, costs.machine.host_memory - host))
        paged = min(pageable, max(0, device - self.budget))
        estimate = self.work.estimate(way, paged=paged)
        return Choice(way, items, device, host, paged, pageable, estimate)

    def fits(self, choice: Choice) -> bool:
        """Whether device and host have room for it."""
        room = self.costs.machine.host_memory
        host = self.costs.machine.device == "cpu" or not room or choice.host_bytes <= room
        return host and choice.device_bytes - choice.paged <= self.budget

    def choices(self) -> tuple[Choice, ...]:
        """All that the recipe leaves open; layers are shared out where whole ones do not fit, and
        what needs the link to the host is weighed where nothing else fits."""
        for strategy in self.strategies():
            plain = self.plain(strategy)
            if any(self.fits(choice) for choice in plain):
                return plain
        homes = self._homes(self.strategies(), linked=True)
        return self._weighed(homes, self._policies(self._all_policies()))

    def plain(self, strategy: Strategy) -> tuple[Choice, ...]:
        """All of one strategy that need no link to the host."""
        return self._weighed(self._homes((strategy,)), self._policies(PLAIN))

    def strategies(self) -> tuple[Strategy, ...]:
        """How the base may be held where several processes train, the mildest first."""
        wish = self.costs.recipe.distributed.strategy
        if self.costs.processes == 1:
            return ("none",)
        if wish != "auto":
            return (wish,)
        return ("ddp",) if why_whole(self.costs) else ("ddp", "fsdp")

    def choose(self, choices: Iterable[Choice]) -> Choice:
        """The fastest that fits; the smallest if none does."""
        choices = list(choices)
        fitting = [choice for choice in choices if self.fits(choice)]
        if not fitting:
            return min(choices, key=lambda choice: choice.least_bytes)
        # rows are seldom at their longest, so of two that are as fast the larger pass gains more
        enough = min(each.seconds for each in fitting) * AS_FAST
        fast = [each for each in fitting if each.seconds <= enough]
        return min(fast, key=lambda each: (-each.way.micro_batch_size, each.seconds))

    def least_bytes(self, strategies: tuple[Strategy, ...] = (), *, linked: bool = True) -> int:
        """The fewest device bytes that any way takes, of some strategies or of all; `linked`:
        layers may wait in host memory."""
        homes = self._homes(strategies or self.strategies(), linked=linked)
        ways = self._ways(homes, self._policies(self._all_policies()), self.micro_batch_sizes()[0])
        return min(self.weigh(self.with_copies(way)).least_bytes for way in ways)

    def micro_batch_sizes(self) -> list[int]:
        """The recipe's own, or the divisors of a process's rows that a pass can use, ascending."""
        wish, rows = self.costs.recipe.memory.micro_batch_size, self.costs.rows
        if wish != "auto":
            return [min(wish, rows)]
        most = max(1, ENOUGH_TOKENS[self.costs.machine.device] // self.costs.row_tokens)
        return [size for size in range(1, min(rows, most) + 1) if rows % size == 0]

    def with_copies(self, way: Way) -> Way:
        """The way with as many unfolded layers as the recipe asks for, or memory is left for."""
        layers, wish = self.costs.layers, self.costs.recipe.memory.dequantized_layers
        if wish != "auto":
            number = layers.number if wish == "all" else min(wish, layers.number)
            return replace(way, dequantized_layers=number)
        unfolds = self.costs.holding.bits == 4 and layers.unfolded and way.base == "resident"
        unfolds = unfolds and way.strategy != "fsdp"
        if not unfolds or self.costs.machine.device == "cpu":
            return way
        one, none = (self._device_bytes(replace(way, dequantized_layers=n)) for n in (1, 0))
        number = int((SAFE_SHARE * self.budget - none) // (one - none))
        return replace(way, dequantized_layers=max(0, min(layers.number, number)))

    def _device_bytes(self, way: Way) -> int:
        return sum(item.bytes for item in self.costs.items(way) if item.where == "device")

    def _weighed(
        self, homes: Sequence[Home], policies: tuple[ActivationPolicy, ...]
    ) -> tuple[Choice, ...]:
        return tuple(
            self.weigh(self.with_copies(way))
            for size in self.micro_batch_sizes()
            for way in self._ways(homes, policies, size)
        )

    def _ways(
        self, homes: Sequence[Home], policies: tuple[ActivationPolicy, ...], size: int
    ) -> Iterator[Way]:
        for home, policy, chunk in product(homes, policies, self._chunks()):
            strategy, base, offload = home
            yield Way(size, policy, base, 0, chunk, strategy, offload)

    def _homes(self, strategies: tuple[Strategy, ...], *, linked: bool = False) -> tuple[Home, ...]:
        """Where the frozen layers may be, the link to host memory used only where that is open."""
        last = None if linked else 1
        bases = [(base, False) for base in self._bases()[:last]]
        shares: list[tuple[Base, bool]] = [("resident", each) for each in self._offloads()[:last]]
        return tuple(
            (strategy, base, offload)
            for strategy in strategies
            for base, offload in (shares if strategy == "fsdp" else bases)
        )

    def _offloads(self) -> tuple[bool, ...]:
        recipe = self.costs.recipe
        wish = recipe.distributed.offload
        bridged = any(isinstance(part, BridgeConfig) for part in parts_of(recipe.method))
        stays = wish == "auto" and (bridged or recipe.memory.base == "resident")
        if stays or self.costs.machine.device == "cpu":
            return (False,)
        return (False, True) if wish == "auto" else (wish,)

    def _chunks(self) -> tuple[int, ...]:
        wish = self.costs.recipe.memory.loss_chunk_size
        if wish != "auto":
            return (wish,)
        return LOSS_CHUNKS[:1] if self.costs.shape.classes else LOSS_CHUNKS

    def _all_policies(self) -> tuple[ActivationPolicy, ...]:
        return (*PLAIN, "offload") if self.costs.machine.device == "cuda" else PLAIN

    def _bases(self) -> tuple[Base, ...]:
        wish = self.costs.recipe.memory.base
        if wish != "auto":
            return (wish,)
        streams = self.costs.holding.bits == 4 and self.costs.layers.number > 2
        streams &= self.costs.recipe.memory.dequantized_layers in ("auto", 0)
        streams &= self.costs.recipe.model.task == "causal"
        return ("resident", "stream") if streams else ("resident",)

    def _policies(self, open_: tuple[ActivationPolicy, ...]) -> tuple[ActivationPolicy, ...]:
        wish = self.costs.recipe.memory.activations
        return open_ if wish == "auto" else (wish,)
