"""Delta-LoRA (Zi et al. 2023): W moves with its LoRA, W += ratio s (B' A' - B A) after each step.

The steps add up to ratio s (B A - B_0 A_0), which needs no other weight: `virtual` computes it
beside a frozen W of any bits, `in_place` folds it into a dense 16-bit copy. No dropout: the
gradient of W would be another than that of B A. The file is a LoRA's with the snapshot A_0, B_0
beside; of a plain LoRA's kind it is one of twice the rank.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from qtune.errors import ModelError, UsageError
from qtune.methods import lora_format, lora_merge
from qtune.methods.adapter import Standin
from qtune.methods.delta_linear import DeltaLinear, FoldedDeltaLinear
from qtune.methods.low_rank import LowRank
from qtune.methods.peft_format import PREFIX
from qtune.methods.strict import refuse_differences
from qtune.methods.warm_up import end_of_warm_up
from qtune.recipe.methods import DeltaLoraConfig

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from torch import Tensor, nn

    from qtune.methods.base import Edit
    from qtune.methods.lora_linear import LoraLinear
    from qtune.recipe.methods import LoraConfig, LowRankConfig, MethodConfig

DOWN, UP = ".delta_A.weight", ".delta_B.weight"
KEYS = ("delta_ratio", "warmup_steps", "form")
LONGEST_WARM_UP = 500  # steps


class DeltaLora(LowRank):
    """LoRA whose changes move the weight, too."""

    name: ClassVar[str] = "delta_lora"
    peft_type: ClassVar[str] = "DELTA_LORA"
    config: DeltaLoraConfig

    def __init__(self, config: MethodConfig, *, seed: int) -> None:
        super().__init__(config, seed=seed)
        assert isinstance(config, DeltaLoraConfig)
        self._begins = config.warmup_steps

    def adapt(self, name: str, module: nn.Module) -> LoraLinear:
        """The layer for one linear, as it is drawn; `UsageError` for in_place on few bits."""
        adapter = super().adapt(name, module)
        assert isinstance(adapter, DeltaLinear)
        return adapter.prepare(self.config.delta_ratio)

    def kind(self) -> type[LoraLinear]:
        """The layer that stands in for a chosen linear."""
        return FoldedDeltaLinear if self.config.form == "in_place" else DeltaLinear

    def put_over(self) -> None:
        """As of `StandinMethod`; `UsageError` for a folded weight behind another method's."""
        super().put_over()
        for layer in self._layers().values():
            if isinstance(layer, FoldedDeltaLinear) and isinstance(layer.base, Standin):
                raise UsageError(
                    "in_place moves the weight itself, and another method stands before it",
                    place="method.form",
                    hint="set it to virtual, which computes the same, or list delta_lora first",
                )

    def will_train(self, total_steps: int, *, longest_row: int) -> None:  # noqa: ARG002
        """Lay the warm-up into the run; `UsageError` when no step is left after it."""
        asked = self.config.warmup_steps
        self._begins = end_of_warm_up(asked, total_steps, most=LONGEST_WARM_UP)

    def before_step(self, step: int) -> None:
        """Take the snapshot when the warm-up is over; a weight that moves goes on moving."""
        warm = self._begins is not None and step >= self._begins
        for layer in self._layers().values():
            if warm and not layer.moves:
                layer.take_snapshot()

    def after_step(self, step: int) -> None:  # noqa: ARG002
        """Have the weights follow."""
        for layer in self._layers().values():
            if layer.moves:
                layer.fold()

    def file_parameters(self) -> dict[str, Tensor]:
        """What trains, and the snapshot."""
        found: dict[str, Tensor] = dict(super().file_parameters())
        for name, layer in self._layers().items():
            found |= {f"{name}.{end}": tensor for end, tensor in layer.file_tensors().items()}
        return found

    def load_adapter(self, tensors: Mapping[str, Tensor]) -> None:
        """Take other weights; one whose snapshot is its own A and B has not moved yet."""
        refuse_differences(self.file_parameters(), tensors, what="adapter")
        for layer in self._layers().values():
            layer.moves = True  # so that the file's snapshot goes to its own place
        super().load_adapter(tensors)
        for layer in self._layers().values():
            pairs = ((layer.down, layer.start_down), (layer.up, layer.start_up))
            layer.moves = not all(torch.equal(now, then) for now, then in pairs)
            layer.fold()

    def _layers(self) -> dict[str, DeltaLinear]:
        found = self.adapters.items()
        return {f"{PREFIX}{name}": each for name, each in found if isinstance(each, DeltaLinear)}

    def peft_config(self) -> dict[str, Any]:
        """A LoraConfig of PEFT of a type that only qtune knows, with its own keys."""
        own = self.config.model_dump(mode="json", include=set(KEYS))
        return {**super().peft_config(), "peft_type": self.peft_type, **own}

    @classmethod
    def config_from_peft(cls, config: dict[str, Any]) -> DeltaLoraConfig:
        """Read our own adapter_config.json."""
        return cls.config_from_file(config, ())

    @classmethod
    def config_from_file(cls, config: dict[str, Any], names: Collection[str]) -> DeltaLoraConfig:
        """With the modules_to_save that the names of the tensors say."""
        names = [name for name in names if not name.endswith((DOWN, UP))]
        return lora_format.read_variant(DeltaLoraConfig, config, names, keys=KEYS)

    @classmethod
    def merge_edits(
        cls, config: LowRankConfig, tensors: Mapping[str, Tensor], *, fan_in_fan_out: bool = False
    ) -> dict[str, Edit]:
        """W + s B A + ratio s (B A - B_0 A_0)."""
        plain, joined = as_lora(config, tensors)
        return lora_merge.edits(plain, joined, fan_in_fan_out=fan_in_fan_out)


def as_lora(
    config: LowRankConfig, tensors: Mapping[str, Tensor]
) -> tuple[LoraConfig, dict[str, Tensor]]:
    """The plain LoRA of twice the rank that an adapter is: A' = [A; A_0],
    B' = [(1 + ratio) B, -ratio B_0], and alpha such that each layer's scale is what it was."""
    assert isinstance(config, DeltaLoraConfig)
    factor = math.sqrt(2) if config.use_rslora else 2.0
    doubled = {
        "rank": 2 * config.rank,
        "alpha": factor * config.alpha,
        "rank_pattern": {name: 2 * rank for name, rank in config.rank_pattern.items()},
        "alpha_pattern": {name: factor * alpha for name, alpha in config.alpha_pattern.items()},
    }
    joined = {}
    for name, tensor in tensors.items():
        if name.endswith(lora_merge.DOWN):
            start = _snapshot(tensors, name.removesuffix(lora_merge.DOWN) + DOWN)
            joined[name] = torch.cat([tensor, start])
        elif name.endswith(lora_merge.UP):
            start = _snapshot(tensors, name.removesuffix(lora_merge.UP) + UP)
            ratio = config.delta_ratio
            joined[name] = torch.cat([(1 + ratio) * tensor, -ratio * start], dim=1)
        elif not name.endswith((DOWN, UP)):
            joined[name] = tensor
    return config.plain().model_copy(update=doubled), joined


def _snapshot(tensors: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in tensors:
        raise ModelError(f"the adapter file lacks {name}", hint="save or fetch it again")
    return tensors[name]
