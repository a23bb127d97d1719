"""What the methods share that learn a product B A of two small matrices beside a weight.

Each puts its own kind of layer in; all save a LoRA in PEFT's format, and fold as one.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from qtune.methods import lora_format, lora_merge
from qtune.methods.adapter import DTYPES, Standin, generator_for, refuse_attached
from qtune.methods.lora_scale import rank_of, scale_of
from qtune.methods.saved_module import SavedModule
from qtune.methods.selection import chosen_linears, file_targets, saved_names
from qtune.methods.standins import StandinMethod
from qtune.ops.linears import OF_IMAGES, class_heads
from qtune.plan.targets import refuse_unused_patterns

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from torch import Tensor, nn

    from qtune.methods.base import Edit
    from qtune.methods.lora_linear import LoraLinear
    from qtune.recipe.methods import LowRankConfig, LowRankMethod


class LowRank(StandinMethod):
    """Low-rank adapters on chosen linear layers, and trained copies of whole modules."""

    peft_type: ClassVar[str] = "LORA"
    config: LowRankMethod

    def attach(self, model: nn.Module, *, tokenizer: Any = None) -> None:  # noqa: ARG002
        """Swap the chosen layers for adapters; `UsageError` for a name that fits nothing."""
        refuse_attached(model)
        saved = saved_names(model, self.config.modules_to_save)
        chosen = chosen_linears(model, self.config, saved=saved)
        for key in ("rank_pattern", "alpha_pattern"):
            refuse_unused_patterns(getattr(self.config, key), chosen, key=f"method.{key}")
        adapters: dict[str, Standin] = {
            name: self.adapt(name, module) for name, module in chosen.items()
        }
        dtype, heads = DTYPES[self.config.dtype], class_heads(model)
        for name in saved:
            wide = torch.float32 if name in heads else dtype
            adapters[name] = SavedModule(model.get_submodule(name), dtype=wide, name=name)
        self._facts = lora_format.facts(
            self.config.plain(), file_targets(model, chosen, self.config), saved, chosen.values()
        )
        if heads:  # PEFT has no task of images
            images = type(model).__name__.endswith(OF_IMAGES)
            self._facts["task_type"] = None if images else "SEQ_CLS"
        self.put_in(model, adapters)

    def adapt(self, name: str, module: nn.Module) -> LoraLinear:
        """The layer for one linear, as it is drawn."""
        return self.kind()(
            module,
            rank=rank_of(self.config, name),
            scale=scale_of(self.config, name),
            dropout=self.config.dropout,
            dtype=DTYPES[self.config.dtype],
            generator=generator_for(self.seed, name),
        )

    @abstractmethod
    def kind(self) -> type[LoraLinear]:
        """The layer that stands in for a chosen linear."""

    def peft_config(self) -> dict[str, Any]:
        """A LoraConfig of PEFT, without anything left to PEFT's defaults."""
        return dict(self._facts)

    @classmethod
    def config_from_peft(cls, config: dict[str, Any]) -> LowRankMethod:
        """Read a LoraConfig of PEFT; `ModelError` for variants we do not compute."""
        return lora_format.read(config)

    @classmethod
    def config_from_file(cls, config: dict[str, Any], names: Collection[str]) -> LowRankMethod:
        """With the modules_to_save that PEFT really meant."""
        return lora_format.resolve_saved(lora_format.read(config), names)

    @classmethod
    def merge_edits(
        cls, config: LowRankConfig, tensors: Mapping[str, Tensor], *, fan_in_fan_out: bool = False
    ) -> dict[str, Edit]:
        """W + s B A, with DoRA's row norms if learned; trained copies replace their originals."""
        return lora_merge.edits(config.plain(), tensors, fan_in_fan_out=fan_in_fan_out)
