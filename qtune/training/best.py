"""Which weights are the best so far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qtune.recipe.results import SMALLER_IS_BETTER

if TYPE_CHECKING:
    from qtune.training.events import EvalEvent


@dataclass
class Best:
    """The step with the best held-out `metric` so far; the earlier one wins a tie."""

    metric: str
    step: int | None = None
    value: float | None = None

    def update(self, event: EvalEvent) -> bool:
        """Take an evaluation into account; True if it is the best yet."""
        value = event.measures[self.metric]
        if self.value is not None:
            better = value < self.value if self.metric in SMALLER_IS_BETTER else value > self.value
            if not better:
                return False
        self.step, self.value = event.step, value
        return True
