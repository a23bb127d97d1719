"""Learning-rate schedules as pure functions of the step."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from qtune.recipe.steps import OptimSection


def schedule(
    section: OptimSection, *, total_steps: int, warmup_steps: int
) -> Callable[[int], float]:
    """The factor on the peak learning rate at step 0 .. total_steps-1.

    The first `warmup_steps` steps rise linearly and stay below the peak, whatever follows: also
    for `constant`, where transformers ignores a warm-up. Then linear or cosine falls from 1 to
    `min_lr_ratio`, which the last step reaches.
    """
    floor = section.min_lr_ratio

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        progress = min(1.0, (step - warmup_steps) / max(1, total_steps - 1 - warmup_steps))
        match section.lr_scheduler_type:
            case "constant":
                return 1.0
            case "linear":
                return 1.0 - (1.0 - floor) * progress
            case "cosine":
                return floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * progress))

    return factor
