"""The linears whose matrices a method trains are left in 16 bits: the recipe is told which."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from qtune.plan.selective import trained_weights
from qtune.recipe import Origin
from qtune.recipe.methods import SelectiveConfig, parts_of
from qtune.run.shapes import shape_and_note

if TYPE_CHECKING:
    from qtune.recipe import Loaded
    from qtune.recipe.sections import Recipe

KEY = "quantization.skip_modules"


def left_dense(loaded: Loaded) -> Loaded:
    """A recipe of selective tuning with skip_modules that name what it trains; others as is."""
    asked = loaded.recipe
    found = with_skipped(asked)
    if found is asked:
        return loaded
    origins = loaded.origins | {KEY: Origin("default", note="with what method selective trains")}
    return replace(loaded, recipe=found, origins=origins)


def with_skipped(asked: Recipe) -> Recipe:
    """The recipe with the linears that selective tuning trains in quantization.skip_modules."""
    parts = [part for part in parts_of(asked.method) if isinstance(part, SelectiveConfig)]
    if not parts or asked.quantization.bits == 16:
        return asked
    shape, _ = shape_and_note(asked.model)
    names = [name for part in parts for name in trained_weights(part, shape)]
    listed = dict.fromkeys((*asked.quantization.skip_modules, *names))
    if len(listed) == len(asked.quantization.skip_modules):
        return asked
    section = asked.quantization.model_copy(update={"skip_modules": tuple(listed)})
    return asked.model_copy(update={"quantization": section})
