"""The monitor of a run, made of what is known of it before the first step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from qtune.run.ceiling import Ceiling
from qtune.run.monitoring.alerts import Alerts
from qtune.run.monitoring.monitor import Monitor
from qtune.run.shapes import shape_of_model

if TYPE_CHECKING:
    from pathlib import Path

    from qtune.plan import Plan
    from qtune.recipe.sections import Recipe
    from qtune.run.monitoring.sampler import Sampler


def monitor(
    asked: Recipe, decided: Plan, sampler: Sampler, *, folder: Path, before: float
) -> Monitor:
    """Of a run in `folder` that has gone on for `before` seconds already."""
    ceiling = Ceiling.of(
        shape_of_model(asked.model),
        device=torch.device(decided.machine.device),
        dtype=getattr(torch, asked.quantization.compute_dtype),
        processes=decided.processes,
    )
    return Monitor(sampler, Alerts.of_plan(decided), ceiling, folder=folder, before=before)
