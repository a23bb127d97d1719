"""LoRA (Hu et al. 2021): y = Wx + b + s B A x, s = alpha/r; W and b frozen, B zero at the start.

With rsLoRA (Kalajdzievski 2023, s = alpha/sqrt(r)), DoRA (Liu et al. 2024, learned row norms) and
LoRA+ (Hayou et al. 2024, a larger learning rate for B).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from qtune.methods import lora_format, lora_merge
from qtune.methods.adapter import (
    DTYPES,
    Standin,
    generator_for,
    refuse_attached,
    restore_all,
    swap_all,
)
from qtune.methods.base import Edit, Method, groups_by_decay
from qtune.methods.lora_linear import DoraLinear, LoraLinear
from qtune.methods.lora_scale import rank_of, scale_of
from qtune.methods.peft_format import PREFIX
from qtune.methods.saved_module import SavedModule
from qtune.methods.selection import (
    chosen_linears,
    file_targets,
    saved_names,
)
from qtune.plan.targets import refuse_unused_patterns

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from torch import Tensor, nn

    from qtune.recipe.methods import LoraConfig


class Lora(Method):
    """Low-rank adapters on chosen linear layers, and trained copies of whole modules."""

    name: ClassVar[str] = "lora"
    peft_type: ClassVar[str] = "LORA"
    config: LoraConfig

    def attach(self, model: nn.Module, *, tokenizer: Any = None) -> None:  # noqa: ARG002
        """Swap the chosen layers for adapters; `UsageError` for a name that fits nothing."""
        refuse_attached(model)
        saved = saved_names(model, self.config.modules_to_save)
        chosen = chosen_linears(model, self.config, saved=saved)
        for key in ("rank_pattern", "alpha_pattern"):
            refuse_unused_patterns(getattr(self.config, key), chosen, key=f"method.{key}")
        adapters: dict[str, Standin] = {
            name: self._adapt(name, module) for name, module in chosen.items()
        }
        dtype = DTYPES[self.config.dtype]
        for name in saved:
            adapters[name] = SavedModule(model.get_submodule(name), dtype=dtype, name=name)
        self._facts = lora_format.facts(
            self.config, file_targets(model, chosen, self.config), saved, chosen.values()
        )
        swap_all(model, adapters)
        self._model, self._standins = model, adapters
        self.adapters = dict(adapters)

    def _adapt(self, name: str, module: nn.Module) -> LoraLinear:
        kind = DoraLinear if self.config.use_dora else LoraLinear
        return kind(
            module,
            rank=rank_of(self.config, name),
            scale=scale_of(self.config, name),
            dropout=self.config.dropout,
            dtype=DTYPES[self.config.dtype],
            generator=generator_for(self.seed, name),
        )

    def detach(self) -> None:
        """Put the base layers back."""
        restore_all(self._model, self._standins)
        self.adapters = {}

    def parameters(self) -> dict[str, nn.Parameter]:
        """base_model.model.<module>.lora_A.weight and so on."""
        return {
            f"{PREFIX}{name}.{end}": tensor
            for name, adapter in self.adapters.items()
            for end, tensor in adapter.tensors().items()
        }

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

    def peft_config(self) -> dict[str, Any]:
        """A LoraConfig of PEFT, without anything left to PEFT's defaults."""
        return dict(self._facts)

    @classmethod
    def config_from_peft(cls, config: dict[str, Any]) -> LoraConfig:
        """Read a LoraConfig of PEFT; `ModelError` for variants we do not compute."""
        return lora_format.read(config)

    @classmethod
    def config_from_file(cls, config: dict[str, Any], names: Collection[str]) -> LoraConfig:
        """With the modules_to_save that PEFT really meant."""
        return lora_format.resolve_saved(lora_format.read(config), names)

    @classmethod
    def merge_edits(
        cls, config: LoraConfig, tensors: Mapping[str, Tensor], *, fan_in_fan_out: bool = False
    ) -> dict[str, Edit]:
        """W + s B A, with DoRA's row norms if learned; trained copies replace their originals."""
        return lora_merge.edits(config, tensors, fan_in_fan_out=fan_in_fan_out)
