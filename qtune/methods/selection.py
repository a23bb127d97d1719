"""Which modules of a model a method works on, and how the adapter file names them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtune.ops.linears import linear_modules
from qtune.plan.targets import (
    ends_with,
    find_modules,
    is_within,
    layer_index,
    select_targets,
    suffixes,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import nn

    from qtune.recipe.methods import TargetsConfig


def chosen_linears(
    model: nn.Module, config: TargetsConfig, *, saved: Sequence[str] = ()
) -> dict[str, nn.Module]:
    """The linear layers a recipe means, by full name; none inside the `saved` modules."""
    linears = linear_modules(model)
    chosen = select_targets(
        list(linears),
        target_modules=config.target_modules,
        exclude_modules=config.exclude_modules,
        layers_to_transform=config.layers_to_transform,
    )
    return {
        name: linears[name]
        for name in chosen
        if not any(is_within(name, module) for module in saved)
    }


def saved_names(model: nn.Module, wanted: Sequence[str]) -> list[str]:
    """Full names of the modules meant by name or suffix; `UsageError` when one means none."""
    return find_modules(_module_names(model), wanted, key="method.modules_to_save", kind="module")


def file_targets(model: nn.Module, chosen: Iterable[str], config: TargetsConfig) -> dict[str, Any]:
    """target_modules and layers_to_transform that mean exactly `chosen` to PEFT.

    Short names where they are enough, as other tools like them; full names where a short one would
    also reach something else. Exclusions and patterns are resolved, so none is left to interpret.
    """
    chosen = set(chosen)
    short = suffixes(chosen)
    layers = list(config.layers_to_transform)
    reached = {
        name
        for name in _module_names(model)
        if any(ends_with(name, word) for word in short)
        and (not layers or layer_index(name) in layers)
    }
    if reached == chosen:
        return {"target_modules": sorted(short), "layers_to_transform": layers or None}
    return {"target_modules": sorted(chosen), "layers_to_transform": None}


def _module_names(model: nn.Module) -> list[str]:
    return [name for name, _ in model.named_modules(remove_duplicate=False) if name]
