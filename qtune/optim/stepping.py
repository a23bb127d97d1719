"""One update of the weights, unless a number on the device says no."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer


def step_unless(optimizer: Optimizer, stop: Tensor) -> None:
    """Update, unless `stop` (a bool scalar) is true: then no weight and no state changes.

    torch's fused optimizers read `stop` on the device. The others are asked by the host, which
    waits for it once: nothing on a CPU.
    """
    if all(group.get("fused") for group in optimizer.param_groups):
        optimizer.found_inf = stop.float()  # type: ignore[attr-defined]
        optimizer.step()
    elif not bool(stop):
        if hasattr(optimizer, "update_step"):
            _update_each(optimizer)
        else:
            optimizer.step()


@torch.no_grad()
def _update_each(optimizer: Any) -> None:
    """The `step` of a bitsandbytes optimizer, which waits for the device after every tensor; here
    only paged states are waited for, and those once."""
    if not optimizer.initialized:
        optimizer.check_overrides()
        optimizer.to_gpu()
        optimizer.initialized = True
    for group_number, group in enumerate(optimizer.param_groups):
        for number, parameter in enumerate(group["params"]):
            if parameter.grad is None:
                continue
            if not optimizer.state[parameter]:
                optimizer.init_state(group, parameter, group_number, number)
            optimizer.prefetch_state(parameter)
            optimizer.update_step(group, parameter, group_number, number)
    if optimizer.is_paged and torch.cuda.is_available():
        torch.cuda.synchronize()
