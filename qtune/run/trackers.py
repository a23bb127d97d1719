"""accelerate as this project uses it: the device, and the trackers of a run."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

from accelerate import Accelerator

from qtune.errors import UsageError
from qtune.recipe.paths import portable

if TYPE_CHECKING:
    from pathlib import Path

    from qtune.plan import Plan
    from qtune.recipe.sections import Recipe


def accelerator(asked: Recipe, decided: Plan, folder: Path) -> Accelerator:
    """The accelerator of a run; `UsageError` for a tracker that is not installed."""
    for name in asked.logging.report_to:
        if importlib.util.find_spec(name) is None:
            raise UsageError(
                f"{name} is not installed",
                place="logging.report_to",
                hint=f"pip install {name}, or take it off the list",
            )
    return Accelerator(
        cpu=decided.machine.device == "cpu",
        log_with=list(asked.logging.report_to) or None,
        project_dir=folder,
    )


def flat(asked: Recipe) -> dict[str, Any]:
    """The recipe for trackers: one level, texts and numbers; folders by their last name only."""
    values = portable(asked.model_dump(mode="json"))
    return {
        f"{section}.{key}": value if isinstance(value, str | int | float | bool) else str(value)
        for section, keys in values.items()
        for key, value in keys.items()
    }
