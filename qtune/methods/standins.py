"""What the methods share whose modules stand in the place of modules of the base."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtune.methods.adapter import Standin, restore_all, swap_all
from qtune.methods.base import Method
from qtune.methods.peft_format import PREFIX

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn


class StandinMethod(Method):
    """Swaps modules in at `attach`, and out again at `detach`."""

    def put_in(self, model: nn.Module, standins: Mapping[str, Standin]) -> None:
        """Put every stand-in, by the full name of what it stands for, into its place."""
        swap_all(model, standins)
        self._model, self._standins = model, dict(standins)
        self.adapters = dict(standins)

    def put_over(self) -> None:
        """Put the stand-ins, taken out before, over what now stands in their places."""
        for name, standin in self._standins.items():
            standin.base = self._model.get_submodule(name)
        self.put_in(self._model, self._standins)

    def detach(self) -> None:
        """Put the base modules back."""
        restore_all(self._model, self._standins)
        self.adapters = {}

    def parameters(self) -> dict[str, nn.Parameter]:
        """base_model.model.<module>.<end>, such as lora_A.weight."""
        return {
            f"{PREFIX}{name}.{end}": tensor
            for name, standin in self._standins.items()
            for end, tensor in standin.tensors().items()
        }
