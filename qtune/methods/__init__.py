"""Ways to fine-tune: one class each behind one small protocol, adapters in PEFT's file format."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtune.methods.files import AdapterFile, read, save
from qtune.methods.table import METHODS

if TYPE_CHECKING:
    from qtune.methods.base import Method
    from qtune.recipe.methods import MethodConfig

__all__ = ["METHODS", "AdapterFile", "create", "read", "save"]


def create(config: MethodConfig, *, seed: int) -> Method:
    """The method that a recipe names, not yet attached."""
    method: Method = METHODS[config.name](config, seed=seed)
    return method
