"""The plan: what a recipe becomes on one machine, each value with its reason."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from qtune.errors import ResourceError
from qtune.sizes import human

if TYPE_CHECKING:
    from qtune.plan.distribution import Distribution
    from qtune.plan.machine import Machine
    from qtune.plan.steps import Steps
    from qtune.plan.work import Estimate
    from qtune.recipe.steps import ActivationPolicy, Base

Strategy = Literal["none", "ddp", "fsdp"]

PAGED_OUT = "optimizer states, paged out"
"""The part of the states that the device has no room for."""


FROZEN = "frozen low-rank matrices"
"""Of the adapter, but not trained."""


@dataclass(frozen=True)
class MemoryItem:
    """Bytes of one part, where they lie, and how they come about."""

    part: str
    bytes: int
    where: Literal["device", "host", "disk"]
    reason: str


@dataclass(frozen=True)
class Decision:
    """A value the plan chose or confirmed, by its key in the recipe."""

    key: str
    value: str
    reason: str


@dataclass(frozen=True)
class Switch:
    """One setting changed, everything else as planned; an estimate of what it does to a step."""

    key: str
    value: str
    saves_bytes: int
    """Of device memory; negative where it takes more."""
    adds_seconds: float
    """To a step; negative where it is faster."""
    fits: bool


@dataclass(frozen=True)
class Remedy:
    """Settings that lower the memory a recipe needs, with what planning anew gives."""

    settings: tuple[str, ...]
    device_bytes: int
    saving: int
    fits: bool

    def __str__(self) -> str:
        return f"{' '.join(self.settings)} (saves {human(self.saving)})"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that is decided before anything is loaded."""

    machine: Machine
    memory: tuple[MemoryItem, ...]
    decisions: tuple[Decision, ...]
    processes: int
    """That train together, one a device; bytes and seconds are those of each."""
    strategy: Strategy
    """What each device holds of the base: all of it, or with fsdp a share of its layers."""
    offload: bool
    """Whether these shares wait in host memory."""
    micro_batch_size: int
    gradient_accumulation_steps: int
    """Passes of a step in each process; with data.packing the most that it may take."""
    activations: ActivationPolicy
    base: Base
    """Where the frozen quantised layers are."""
    dequantized_layers: int
    """How many layers, from the first on, are also kept unfolded."""
    loss_chunk_size: int
    optimizer: str
    trainable_parameters: int
    total_parameters: int
    adapter_bytes: int
    checkpoint_bytes: int
    """The adapter and the optimizer's states, on disk."""
    disk: tuple[MemoryItem, ...]
    """What a run needs on disk, the base included."""
    steps: Steps | None
    device_bytes: int
    host_bytes: int
    """Host memory beside a CUDA device; 0 on a CPU."""
    budget_bytes: int
    fits: bool
    device: str
    """What the estimates are made for."""
    estimate: Estimate
    seconds_per_step: float
    """An estimate, of rows at their longest."""
    tokens_per_second: float
    next_best: str
    """The fastest other way that fits; empty when there is none."""
    switches: tuple[Switch, ...]
    """What each single change costs and saves."""
    remedies: tuple[Remedy, ...] = field(default=())
    """What would make it fit; empty when it does."""
    distribution: Distribution | None = None
    """What the processes send one another, and gain; None with one."""
    fits_on: int | None = None
    """How many such devices together would have room for a recipe that does not fit."""

    def check(self) -> None:
        """Raise `ResourceError` with the settings that would make it fit, unless it fits."""
        if self.fits:
            return
        message = (
            f"needs {human(self.device_bytes)}, and {human(self.budget_bytes)} are there "
            f"({self.machine.name})"
        )
        raise ResourceError(message, place="memory", hint=self.advice())

    def advice(self) -> str:
        """Which settings would make it fit, or how many devices: one line."""
        more = f"; or {self.fits_on} such devices, with --processes" if self.fits_on else ""
        return f"{self._settings()}{more}"

    def _settings(self) -> str:
        if not self.remedies:
            return "no setting of the recipe lowers it; take a smaller model or a larger device"
        sufficient = [remedy for remedy in self.remedies if remedy.fits]
        if not sufficient:
            smallest = min(self.remedies, key=lambda remedy: remedy.device_bytes)
            return (
                f"even {smallest} leaves {human(smallest.device_bytes)}; "
                "take a smaller model or a larger device"
            )
        alone = [str(remedy) for remedy in sufficient if len(remedy.settings) == 1]
        together = [str(remedy) for remedy in sufficient if len(remedy.settings) > 1]
        if not alone:
            return f"no one setting is enough; together these fit: {together[0]}"
        which = "this makes it fit" if len(alone) == 1 else "any one of these makes it fit"
        return "; or together ".join([f"{which}: {', '.join(alone)}", *together])

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)
