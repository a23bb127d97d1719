"""BitFit (Ben Zaken et al. 2021): only biases learn; here an fp32 delta-bias after each linear.

y = Wx + b + d, d zero at the start. Ours is apart from b because a 4-bit layer casts its own bias
to the compute dtype in place, and because most models have none. In PEFT's format this is BEFT.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from qtune.errors import ModelError
from qtune.methods import peft_format
from qtune.methods.adapter import Standin, refuse_attached
from qtune.methods.base import Edit
from qtune.methods.peft_format import module_of
from qtune.methods.selection import chosen_linears, file_targets
from qtune.methods.standins import StandinMethod
from qtune.ops.linears import features
from qtune.recipe.methods import BitfitConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

SUFFIX = ".beft_bias"


class BiasedLinear(Standin):
    """y = base(x) + delta; delta [1, n] as in the file."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__(base)
        _, outputs = features(base)
        self.delta = nn.Parameter(torch.zeros(1, outputs, device=self.device))

    def tensors(self) -> dict[str, nn.Parameter]:
        """The delta-bias under PEFT's name."""
        return {SUFFIX[1:]: self.delta}

    def forward(self, x: Tensor) -> Tensor:
        """[..., m] -> [..., n] in the base's dtype, added in fp32."""
        output: Tensor = self.base(x)
        return (output + self.delta[0]).to(output.dtype) if self.enabled else output


class Bitfit(StandinMethod):
    """A learned bias after each chosen linear layer."""

    name: ClassVar[str] = "bitfit"
    peft_type: ClassVar[str] = "BEFT"
    config: BitfitConfig

    def attach(self, model: nn.Module, *, tokenizer: Any = None) -> None:  # noqa: ARG002
        """Swap the chosen layers for biased ones; `UsageError` for a target without a match."""
        refuse_attached(model)
        chosen = chosen_linears(model, self.config)
        # BEFT knows no layers_to_transform: the names say which.
        wide = self.config.model_copy(update={"layers_to_transform": ()})
        self._targets = file_targets(model, chosen, wide)["target_modules"]
        self.put_in(model, {name: BiasedLinear(module) for name, module in chosen.items()})

    def param_groups(self, *, learning_rate: float, weight_decay: float) -> list[dict[str, Any]]:  # noqa: ARG002
        """One group without weight decay: there is no reason to pull a bias to the base's."""
        trainable = list(self.parameters().values())
        return [{"params": trainable, "lr": learning_rate, "weight_decay": 0.0}]

    def peft_config(self) -> dict[str, Any]:
        """A BeftConfig of PEFT."""
        return {
            **peft_format.header(self.peft_type),
            "target_modules": self._targets,
            "modules_to_save": None,
            "init_weights": True,
        }

    @classmethod
    def config_from_peft(cls, config: dict[str, Any]) -> BitfitConfig:
        """Read a BeftConfig of PEFT."""
        reasons = {"modules_to_save": "trained copies of whole modules"}
        understood = {"target_modules", "init_weights"}
        peft_format.refuse_active(config, understood=understood, reasons=reasons)
        targets = peft_format.targets(config.get("target_modules"))
        return peft_format.section(BitfitConfig, {"target_modules": targets})

    @classmethod
    def merge_edits(
        cls,
        config: BitfitConfig,  # noqa: ARG003
        tensors: Mapping[str, Tensor],
        *,
        fan_in_fan_out: bool = False,  # noqa: ARG003
    ) -> dict[str, Edit]:
        """b + d, or d as a new bias where the base has none."""
        edits = {}
        for name, tensor in tensors.items():
            if not name.endswith(SUFFIX):
                raise ModelError(f"{name} is no delta-bias")
            bias = f"{module_of(name.removesuffix(SUFFIX))}.bias"
            edits[bias] = Edit(True, partial(_add, tensor.reshape(-1).float()), may_create=True)
        return edits


def _add(delta: Tensor, base: Tensor | None) -> Tensor:
    return delta.clone() if base is None else base.float() + delta
