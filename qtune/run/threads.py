"""How many threads compute on the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from qtune.plan.cores import cores

if TYPE_CHECKING:
    from qtune.run.display import Journal


def limit_threads(device: torch.device, journal: Journal) -> None:
    """No more threads than cores that may be used, as torch would start in a container with a CPU
    limit; fewer, which a person or OMP_NUM_THREADS asked for, stay."""
    asked, allowed = torch.get_num_threads(), cores()
    if asked > allowed:
        torch.set_num_threads(allowed)
    if device.type == "cpu":
        used = min(asked, allowed)
        journal.line(f"CPU: {used} {'thread' if used == 1 else 'threads'} on {allowed} cores")
