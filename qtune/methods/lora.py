"""LoRA (Hu et al. 2021): y = Wx + b + s B A x, s = alpha/r; W and b frozen, B zero at the start.

With rsLoRA (Kalajdzievski 2023, s = alpha/sqrt(r)), DoRA (Liu et al. 2024, learned row norms) and
LoRA+ (Hayou et al. 2024, a larger learning rate for B).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from qtune.methods.base import groups_by_decay
from qtune.methods.lora_linear import DoraLinear, LoraLinear
from qtune.methods.low_rank import LowRank

if TYPE_CHECKING:
    from qtune.recipe.methods import LoraConfig


class Lora(LowRank):
    """Low-rank adapters on chosen linear layers, and trained copies of whole modules."""

    name: ClassVar[str] = "lora"
    config: LoraConfig

    def kind(self) -> type[LoraLinear]:
        """A LoRA layer, or one of DoRA."""
        return DoraLinear if self.config.use_dora else LoraLinear

    def param_groups(self, *, learning_rate: float, weight_decay: float) -> list[dict[str, Any]]:
        """With LoRA+ every B learns loraplus_ratio times as fast as the rest."""
        ratio = self.config.loraplus_ratio
        if ratio is None:
            return super().param_groups(learning_rate=learning_rate, weight_decay=weight_decay)
        named = self.parameters().items()
        ups = [tensor for name, tensor in named if name.endswith(".lora_B.weight")]
        others = [tensor for name, tensor in named if not name.endswith(".lora_B.weight")]
        return [
            *groups_by_decay(others, learning_rate=learning_rate, weight_decay=weight_decay),
            *groups_by_decay(ups, learning_rate=learning_rate * ratio, weight_decay=weight_decay),
        ]
