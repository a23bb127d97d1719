"""Memory that runs out in a step: the step is taken back, and done again in smaller parts."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import torch

from qtune.oom import REPEATABLE, let_go
from qtune.training.events import ShrinkEvent
from qtune.training.state import set_random_state

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor
    from torch.optim import Optimizer

    from qtune.oom import OutOfMemory
    from qtune.training.supply import Supply


def take_back(error: OutOfMemory, optimizer: Optimizer, random: Mapping[str, Tensor]) -> None:
    """As if the step had not begun: no gradients, the random generators where they were, and the
    memory of the pass that failed is free."""
    let_go(error)
    optimizer.zero_grad(set_to_none=True)
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    set_random_state(random)


def shrink(error: OutOfMemory, supply: Supply, *, step: int, allowed: bool) -> ShrinkEvent:
    """Halve the micro-batches from after `step` on; raises the error where that is not `allowed`,
    where there is nothing to halve, or where the update itself lacked the memory."""
    if not allowed or supply.rows == 1 or error.phase not in REPEATABLE:
        raise error
    before = supply.rows
    supply.halve()
    return ShrinkEvent(step=step, rows=supply.rows, before=before, where=error.where)
