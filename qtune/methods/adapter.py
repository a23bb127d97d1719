"""Modules that stand in the place of modules of the base, and how they get there."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import torch
from torch import nn

from qtune.errors import ModelError
from qtune.ops.spread import device_of

if TYPE_CHECKING:
    from collections.abc import Mapping

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Adapter(nn.Module, ABC):
    """A trainable module inside a frozen model; with `enabled` off it does what the base does."""

    enabled: bool = True

    @property
    def positions(self) -> int:
        """Positions that it takes before each row."""
        return 0

    @abstractmethod
    def tensors(self) -> dict[str, nn.Parameter]:
        """The trainable tensors by the end of their name in PEFT's adapter file."""


class Standin(Adapter):
    """An adapter that holds the module it stands for, unchanged, as `base`."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base = base

    @property
    def weight(self) -> torch.Tensor:
        """The frozen weight, for models that look at it."""
        return self.base.weight  # type: ignore[return-value]

    @property
    def bias(self) -> torch.Tensor | None:
        """The frozen bias, if there is one."""
        return getattr(self.base, "bias", None)

    @property
    def device(self) -> torch.device:
        """Where the base computes, and the adapter with it."""
        return device_of(self.weight)


def swap(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put `module` under the full name of another one."""
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


def swap_all(model: nn.Module, adapters: Mapping[str, Standin]) -> None:
    """Put every stand-in into its place, in the mode (train or eval) of what it stands for."""
    for name, adapter in adapters.items():
        adapter.train(adapter.base.training)
        swap(model, name, adapter)


def restore_all(model: nn.Module, adapters: Mapping[str, Standin]) -> None:
    """Put the base modules back."""
    for name, adapter in adapters.items():
        swap(model, name, adapter.base)


def generator_for(seed: int, name: str) -> torch.Generator:
    """A CPU generator that depends on the seed and the module's name, and on nothing else."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def refuse_attached(model: nn.Module) -> None:
    """One method at a time: adapters on adapters would be saved and merged as something else."""
    if any(isinstance(module, Adapter) for module in model.modules()):
        raise ModelError("the model already has an adapter", hint="detach it or load the base anew")
    assert not any(parameter.requires_grad for parameter in model.parameters()), "base not frozen"
