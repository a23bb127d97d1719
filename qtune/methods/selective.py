"""Selective tuning: chosen tensors of the base train themselves, by part, layer and type.

Each has a trained fp32 copy beside the frozen one, which is its master copy: the base stays what it
was, and an adapter can be taken off. A matrix that trains is left in 16 bits by the loader; a bias
beside a quantised matrix trains as y - b + b'. The file holds the tensors' full values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from qtune.errors import UsageError
from qtune.methods import lora_merge, peft_format
from qtune.methods.adapter import Standin, refuse_attached
from qtune.methods.peft_format import module_of
from qtune.methods.saved_module import SavedModule
from qtune.methods.standins import StandinMethod
from qtune.ops.linears import linear_modules, output_head
from qtune.ops.nf4 import is_quantized
from qtune.plan.selective import Place, place_of, selected
from qtune.recipe.methods import SelectiveConfig

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from qtune.methods.base import Edit

KEYS = ("parts", "pattern", "layers_to_transform", "types")


class SelectedModule(SavedModule):
    """A trained copy of a module of which some parameters train."""

    def __init__(self, base: nn.Module, *, ends: Collection[str], name: str) -> None:
        super().__init__(base, dtype=torch.float32, name=name)
        for end, parameter in self.trained.named_parameters():
            parameter.requires_grad_(end in ends)

    def tensors(self) -> dict[str, nn.Parameter]:
        """Those that train."""
        return {end: each for end, each in super().tensors().items() if each.requires_grad}


class TrainedBias(Standin):
    """y = base(x) - b + b' of a linear whose matrix stays."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__(base)
        self.trained = nn.Parameter(base.bias.detach().float().clone())  # type: ignore[operator]

    def tensors(self) -> dict[str, nn.Parameter]:
        """The new bias."""
        return {"bias": self.trained}

    def forward(self, x: Tensor) -> Tensor:
        """[..., m] -> [..., n] in the base's dtype."""
        output: Tensor = self.base(x)
        if not self.enabled:
            return output
        old: Tensor = self.base.bias  # type: ignore[assignment]
        return (output + (self.trained - old.float())).to(output.dtype)


class Selective(StandinMethod):
    """Chosen tensors of the base."""

    name: ClassVar[str] = "selective"
    peft_type: ClassVar[str] = "SELECTIVE"
    config: SelectiveConfig

    def attach(self, model: nn.Module, *, tokenizer: Any = None) -> None:  # noqa: ARG002
        """Swap the chosen modules for trained copies; `UsageError` for a quantised matrix."""
        refuse_attached(model)
        ends: dict[str, list[str]] = {}
        for place in selected(self.config, places(model)):
            ends.setdefault(place.module, []).append(place.end)
        self.put_in(
            model,
            {name: _standin(model.get_submodule(name), name, own) for name, own in ends.items()},
        )

    def peft_config(self) -> dict[str, Any]:
        """adapter_config.json in PEFT's layout, of a type that only qtune knows."""
        return peft_format.own_file(self.peft_type, self.config, KEYS)

    @classmethod
    def config_from_peft(cls, config: dict[str, Any]) -> SelectiveConfig:
        """Read our own adapter_config.json."""
        return peft_format.read_own(SelectiveConfig, config, KEYS)

    @classmethod
    def merge_edits(
        cls,
        config: SelectiveConfig,  # noqa: ARG003
        tensors: Mapping[str, Tensor],
        *,
        fan_in_fan_out: bool = False,  # noqa: ARG003
    ) -> dict[str, Edit]:
        """The trained values instead of the base's."""
        return {module_of(name): lora_merge.replacing(tensor) for name, tensor in tensors.items()}


def places(model: nn.Module) -> Iterator[Place]:
    """Every parameter of linears, norms, embeddings and the head, as the plan sees them."""
    linears, head = linear_modules(model), output_head(model)
    for name, module in model.named_modules():
        if module is head:
            continue
        for end, parameter in module.named_parameters(recurse=False):
            yield place_of(
                name,
                end,
                dimensions=parameter.ndim,
                size=parameter.numel(),
                linear=name in linears,
            )
    if head is not None:
        name = next(name for name, module in model.named_modules() if module is head)
        for end, parameter in head.named_parameters(recurse=False):
            yield Place(name, end, "head", parameter.numel(), linear=True)


def _standin(module: nn.Module, name: str, ends: list[str]) -> Standin:
    if ends == ["bias"] and hasattr(module, "weight"):
        return TrainedBias(module)
    if is_quantized(module):
        raise UsageError(
            f"{name} is quantised, and a quantised matrix cannot be trained",
            place="method.parts",
            hint="leave it in 16 bits by quantization.skip_modules, or train biases alone",
        )
    return SelectedModule(module, ends=ends, name=name)
