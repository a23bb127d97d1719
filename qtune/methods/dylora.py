"""DyLoRA (Valipour et al. 2022): each step trains the first b of r ranks, so any b can be used.

y = Wx + (alpha/b) B[:, :b] A[:b] x with one b for all layers, drawn uniformly from min_rank..rank.
The file is a LoRA of full rank; its first k rows and columns with the same alpha are one of rank k.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from qtune.errors import UsageError
from qtune.methods.adapter import generator_for
from qtune.methods.lora_linear import LoraLinear
from qtune.methods.low_rank import LowRank

if TYPE_CHECKING:
    from torch import nn

    from qtune.ops.projection import Projection
    from qtune.recipe.methods import DyloraConfig


class NestedLinear(LoraLinear):
    """A LoRA layer of which the first `active` ranks take part in training, all in evaluation."""

    active: int = 0
    freeze_lower: bool = False
    use_rslora: bool = False

    def slices(self) -> tuple[Tensor, Tensor, float]:
        """(A [b, m], B [n, b], scale) of the ranks that take part."""
        rank = len(self.down)
        count = min(self.active, rank) if self.training and self.active else rank
        root = math.sqrt(rank / count) if self.use_rslora else rank / count
        down, up = self.down[:count], self.up[:, :count]
        if self.freeze_lower and self.training and self.active:
            down = torch.cat([down[:-1].detach(), down[-1:]])
            up = torch.cat([up[:, :-1].detach(), up[:, -1:]], dim=1)
        return down, up, self.scale * root

    def projection(self) -> Projection:
        """As of `LoraLinear`, of the ranks that take part."""
        found = super().projection()
        if not self.enabled:
            return found
        down, up, scale = self.slices()
        return replace(found, down=down, up=up, scale=scale)

    def update(self, x: Tensor) -> Tensor:
        """scale * B A dropout(x) in the adapter's dtype."""
        down, up, scale = self.slices()
        x = functional.dropout(x.to(down.dtype), self.dropout, self.training)
        return functional.linear(functional.linear(x, down) * scale, up)


class Dylora(LowRank):
    """LoRA whose ranks are ordered by what they are worth."""

    name: ClassVar[str] = "dylora"
    config: DyloraConfig

    def attach(self, model: nn.Module, *, tokenizer: object = None) -> None:
        """As LoRA; `UsageError` when min_rank is above the rank."""
        if self.config.min_rank > self.config.rank:
            raise UsageError(
                f"{self.config.min_rank} is above method.rank, {self.config.rank}",
                place="method.min_rank",
            )
        super().attach(model, tokenizer=tokenizer)
        self._held: list[tuple[nn.Parameter, Tensor]] = []

    def adapt(self, name: str, module: nn.Module) -> LoraLinear:
        """The layer for one linear, as it is drawn."""
        adapter = super().adapt(name, module)
        assert isinstance(adapter, NestedLinear)
        adapter.freeze_lower = self.config.freeze_lower
        adapter.use_rslora = self.config.use_rslora
        return adapter

    def kind(self) -> type[LoraLinear]:
        """The layer that stands in for a chosen linear."""
        return NestedLinear

    def before_step(self, step: int) -> None:
        """Draw the step's rank: a function of seed and step, so a resumed run draws the same."""
        generator = generator_for(self.seed, f"rank of step {step}")
        least, most = self.config.min_rank, max(len(each.down) for each in self._nested())
        active = int(torch.randint(least, most + 1, (1,), generator=generator))
        self._held = []
        for adapter in self._nested():
            adapter.active = active
            # an optimizer's momentum moves rows without a gradient too
            for parameter in (adapter.down, adapter.up):
                self._held.append((parameter, parameter.detach().clone()))

    def after_step(self, step: int) -> None:  # noqa: ARG002
        """Put back every row that had no part in the step."""
        held = iter(self._held)
        for adapter in self._nested():
            rank = len(adapter.down)
            last = min(adapter.active, rank)
            first = last - 1 if self.config.freeze_lower else 0
            with torch.no_grad():
                for transposed, (parameter, before) in zip((False, True), held, strict=False):
                    rows = parameter.t() if transposed else parameter
                    old = before.t() if transposed else before
                    rows[:first] = old[:first]
                    rows[last:] = old[last:]
        self._held = []

    def _nested(self) -> list[NestedLinear]:
        return [each for each in self.adapters.values() if isinstance(each, NestedLinear)]
