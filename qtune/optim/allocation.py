"""The memory of an optimizer's states, taken before the first update needs it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor
    from torch.optim import Optimizer


@contextmanager
def states_held(optimizer: Optimizer) -> Iterator[None]:
    """Inside, the states of every parameter take their memory, as they will from the first update
    on.

    bitsandbytes makes them here, as its first update would, and they stay. torch's optimizers make
    their own in no other place than their update, so theirs are stood in for.
    """
    room: list[Tensor] = []
    with torch.no_grad():
        for group_number, group in enumerate(optimizer.param_groups):
            for number, parameter in enumerate(group["params"]):
                if optimizer.state.get(parameter):
                    continue
                if hasattr(optimizer, "init_state"):
                    optimizer.init_state(group, parameter, group_number, number)
                else:
                    room += [torch.zeros_like(parameter) for _ in range(_moments(group))]
    yield
    del room


def _moments(group: dict[str, Any]) -> int:
    return len(group["betas"]) if "betas" in group else int(bool(group.get("momentum")))
