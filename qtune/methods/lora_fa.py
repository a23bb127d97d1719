"""LoRA-FA (Zhang et al. 2023): y = Wx + s B A x with A as it was drawn, B alone learns.

The backward pass then needs A x [.., r] and not x. B's gradient G is corrected to
G (A A^T + eps I)^-1 / s^2: a step of s B A is the full weight's own, projected on the rows of A.
A hook before the update, so that it goes with every optimizer. The file is that of a LoRA.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch

from qtune.methods.lora_linear import LoraLinear
from qtune.methods.low_rank import LowRank
from qtune.methods.peft_format import PREFIX

if TYPE_CHECKING:
    from torch import nn

    from qtune.recipe.methods import LoraFaConfig

EPSILON = 1e-8


class FrozenDownLinear(LoraLinear):
    """A LoRA layer whose A does not train."""

    def freeze(self) -> FrozenDownLinear:
        """Close A."""
        self.down.requires_grad_(False)
        return self

    def tensors(self) -> dict[str, nn.Parameter]:
        """B alone."""
        return {"lora_B.weight": self.up}

    @torch.no_grad()
    def correct_gradient(self) -> None:
        """B's gradient [n, r], times the inverse of s^2 A A^T."""
        if self.up.grad is None:
            return
        down = self.down.float()
        gram = down @ down.t() + EPSILON * torch.eye(len(down), device=down.device)
        solved = torch.linalg.solve(gram, self.up.grad.float().t()).t()
        self.up.grad.copy_(solved / self.scale**2)


class LoraFa(LowRank):
    """LoRA with its first matrices frozen."""

    name: ClassVar[str] = "lora_fa"
    config: LoraFaConfig

    def adapt(self, name: str, module: nn.Module) -> LoraLinear:
        """The layer for one linear, as it is drawn."""
        adapter = super().adapt(name, module)
        assert isinstance(adapter, FrozenDownLinear)
        return adapter.freeze()

    def kind(self) -> type[LoraLinear]:
        """The layer that stands in for a chosen linear."""
        return FrozenDownLinear

    def after_backward(self, step: int) -> None:  # noqa: ARG002
        """Correct every gradient of the step."""
        for adapter in self.adapters.values():
            if isinstance(adapter, FrozenDownLinear):
                adapter.correct_gradient()

    def file_parameters(self) -> dict[str, nn.Parameter]:
        """What trains, each B behind its A."""
        found: dict[str, nn.Parameter] = {}
        for name, adapter in self.adapters.items():
            if isinstance(adapter, FrozenDownLinear):
                found[f"{PREFIX}{name}.lora_A.weight"] = adapter.down
            found |= {f"{PREFIX}{name}.{end}": each for end, each in adapter.tensors().items()}
        return found
