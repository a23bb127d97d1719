"""How many places RoSA's sparse part has."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

from qtune.errors import UsageError

if TYPE_CHECKING:
    from qtune.recipe.methods import RosaConfig


def place_count(config: RosaConfig, outputs: int, inputs: int) -> int:
    """floor(density n m), exactly as the density is written; `UsageError` where that is none."""
    count = int(Fraction(str(config.density)) * outputs * inputs)
    if not count:
        raise UsageError(
            f"{config.density:g} of a linear of {outputs} x {inputs} is no place at all",
            place="method.density",
        )
    return count
