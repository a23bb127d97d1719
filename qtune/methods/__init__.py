"""Ways to fine-tune: one class each behind one small protocol, adapters in PEFT's file format.

The table alone needs no torch; what does is imported when it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtune.methods.table import METHODS

if TYPE_CHECKING:
    from qtune.methods.base import Method
    from qtune.methods.files import AdapterFile, read, save
    from qtune.recipe.methods import MethodConfig
else:

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from qtune.methods import files

        return getattr(files, name)


__all__ = ["METHODS", "AdapterFile", "create", "read", "save"]


def create(config: MethodConfig, *, seed: int) -> Method:
    """The method that a recipe names, not yet attached."""
    method: Method = METHODS[config.name](config, seed=seed)
    return method
