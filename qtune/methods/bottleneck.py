"""Bottleneck adapters: small MLPs in every layer, added to what the layer writes to its stream.

`houlsby` (Houlsby et al. 2019) behind attention and MLP, `pfeiffer` (Pfeiffer et al. 2020) behind
the MLP, `parallel` (He et al. 2022) beside the MLP. PEFT has none: the file is our own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from qtune.methods import peft_format
from qtune.methods.adapter import generator_for, refuse_attached
from qtune.methods.base import CannotMerge, Edit
from qtune.methods.bottleneck_module import Bottleneck, ParallelBottleneck
from qtune.methods.standins import StandinMethod
from qtune.ops.linears import features, linear_modules
from qtune.plan.sites import bottleneck_places, sites_of
from qtune.recipe.methods import BottleneckConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

KEYS = ("placement", "width", "activation", "scale", "layers_to_transform")


class BottleneckAdapters(StandinMethod):
    """A bottleneck at one or two places of every layer."""

    name: ClassVar[str] = "bottleneck"
    peft_type: ClassVar[str] = "BOTTLENECK"
    config: BottleneckConfig

    def attach(self, model: nn.Module, *, tokenizer: Any = None) -> None:  # noqa: ARG002
        """Put stand-ins for attention outputs and MLPs; `UsageError` where there are none."""
        refuse_attached(model)
        hidden: int = model.config.get_text_config().hidden_size  # type: ignore[union-attr, operator]
        outputs = {name: features(module)[1] for name, module in linear_modules(model).items()}
        names = bottleneck_places(self.config, sites_of(outputs, hidden_size=hidden))
        kind = ParallelBottleneck if self.config.placement == "parallel" else Bottleneck
        standins = {
            name: kind(
                model.get_submodule(name),
                hidden_size=hidden,
                width=self.config.width,
                scale=self.config.factor,
                activation=self.config.activation,
                generator=generator_for(self.seed, name),
            )
            for name in names
        }
        self.put_in(model, standins)

    def peft_config(self) -> dict[str, Any]:
        """adapter_config.json in PEFT's layout, of a type that only qtune knows."""
        return peft_format.own_file(self.peft_type, self.config, KEYS)

    @classmethod
    def config_from_peft(cls, config: dict[str, Any]) -> BottleneckConfig:
        """Read our own adapter_config.json."""
        return peft_format.read_own(BottleneckConfig, config, KEYS)

    @classmethod
    def merge_edits(
        cls,
        config: BottleneckConfig,  # noqa: ARG003
        tensors: Mapping[str, Tensor],  # noqa: ARG003
        *,
        fan_in_fan_out: bool = False,  # noqa: ARG003
    ) -> dict[str, Edit]:
        """Never: a small MLP is no change of weights."""
        raise CannotMerge(
            "a bottleneck is a layer of its own, not a change of weights",
            hint="keep the adapter folder beside the base; qtune eval and generate load both",
        )
