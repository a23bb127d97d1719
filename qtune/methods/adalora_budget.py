"""AdaLoRA's budget: how many triplets stay at a step, and which are worth most.

Legend: a triplet i of a matrix is its singular value E_i with row A_i and column B_i. Importance of
a number p with gradient g is |p g|, smoothed over steps, times its own smoothed uncertainty
(equations 9 and 10 of the paper); of a triplet: that of E_i plus the means over A_i and B_i.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


@dataclass(frozen=True)
class Schedule:
    """From `first` triplets to `last`, cubically, between `begins` and `total - final` steps."""

    first: int
    last: int
    begins: int
    final: int
    total: int
    interval: int

    def at(self, step: int) -> int | None:
        """Triplets that stay after step number `step` (from 1); None where nothing is pruned."""
        if step <= self.begins:
            return None
        if step >= self.total - self.final:
            return self.last
        if step % self.interval:
            return None
        left = 1 - (step - self.begins) / (self.total - self.final - self.begins)
        return int((self.first - self.last) * left**3 + self.last)


class Importance:
    """Smoothed importance of every number of some tensors."""

    def __init__(self, tensors: Mapping[str, Tensor], *, smoothing: tuple[float, float]) -> None:
        self.smoothing = smoothing
        self.mean = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
        self.doubt = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}

    @torch.no_grad()
    def update(self, tensors: Mapping[str, Tensor]) -> None:
        """Take in the gradients of a step."""
        first, second = self.smoothing
        for name, tensor in tensors.items():
            if tensor.grad is None:
                continue
            now = (tensor * tensor.grad).abs()
            mean = self.mean[name].mul_(first).add_(now, alpha=1 - first)
            self.doubt[name].mul_(second).add_((now - mean).abs(), alpha=1 - second)

    def score(self, name: str) -> Tensor:
        """Importance times uncertainty of each number."""
        return self.mean[name] * self.doubt[name]

    def state(self) -> dict[str, Tensor]:
        """Both averages by name."""
        parts = {"mean": self.mean, "doubt": self.doubt}
        return {
            f"{part}.{name}": tensor
            for part, held in parts.items()
            for name, tensor in held.items()
        }


def kept(scores: list[Tensor], budget: int) -> list[Tensor]:
    """Which triplets stay, a boolean [r] a matrix: exactly the `budget` best of all together.

    Of equal scores the first matrices' stay: a threshold alone would keep fewer than the budget.
    """
    order = torch.cat(scores).argsort(descending=True, stable=True)
    chosen = torch.zeros(len(order), dtype=torch.bool, device=order.device)
    chosen[order[:budget]] = True
    return list(chosen.split([len(each) for each in scores]))
