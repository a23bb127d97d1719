"""`qtune plan`: what a recipe would take, before anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qtune import plan as plans
from qtune import recipe as recipes
from qtune.plan import Machine, Plan, parse_size

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


@dataclass(frozen=True)
class Planned:
    """A plan, and how its rows were counted."""

    name: str
    model: str
    plan: Plan
    rows: int | None
    rows_reason: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        rows = {"count": self.rows, "reason": self.rows_reason}
        return {"recipe": self.name, "model": self.model, "rows": rows, **self.plan.to_dict()}


def plan(path: Path, *, overrides: Sequence[str] = (), gpu: str | None = None) -> Planned:
    """Plan a recipe for a given card or this machine; no torch, no weights, no rows kept."""
    machine = Machine.probe() if gpu is None else Machine.gpu(parse_size(gpu, place="--gpu"))
    loaded = recipes.load(path, overrides)
    recipe = loaded.recipe
    shape = plans.shape_of_model(recipe.model)
    counted = plans.count_rows(recipe.data)
    made = plans.make(recipe, machine, shape, rows=counted.rows)
    return Planned(
        name=loaded.name,
        model=recipe.model.name_or_path,
        plan=made,
        rows=counted.rows,
        rows_reason=counted.reason,
    )
