"""What must be kept between two steps so that the rest of a run is the same, bit for bit.

The adapter's own tensors are not here, they have a file of their own in PEFT's format; the order
of the rows is a pure function of (seed, epoch), so the step number is all there is to keep of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from qtune import optim
from qtune.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor
    from torch.optim import Optimizer

    from qtune.methods.base import Method
    from qtune.optim.state import Numbers

OPTIMIZER, METHOD, RANDOM = "optimizer/", "method/", "random/"
OTHERS = "others/"


def training_state(
    method: Method, optimizer: Optimizer, others: Sequence[dict[str, Tensor]] = ()
) -> tuple[dict[str, Tensor], Numbers]:
    """Tensors and numbers of the optimizer, the method and the random generators: this process's,
    and those of `others`, by rank from 1 on."""
    states, numbers = optim.state_of(optimizer, method.parameters())
    tensors = {f"{OPTIMIZER}{name}": tensor for name, tensor in states.items()}
    tensors |= {f"{METHOD}{name}": tensor for name, tensor in method.state().items()}
    tensors |= {f"{RANDOM}{name}": tensor for name, tensor in random_state().items()}
    for rank, random in enumerate(others, start=1):
        tensors |= {f"{OTHERS}{rank}/{name}": tensor for name, tensor in random.items()}
    return tensors, numbers


def restore(
    method: Method,
    optimizer: Optimizer,
    tensors: Mapping[str, Tensor],
    numbers: Mapping[str, int | float | bool],
    *,
    rank: int = 0,
) -> None:
    """Take back what `training_state` gave; `ModelError` for anything missing, foreign or of
    another shape. The random generators come last: making states may draw from them. Those of a
    `rank` that was not there then stay as they are."""
    parts: dict[str, dict[str, Tensor]] = {OPTIMIZER: {}, METHOD: {}, RANDOM: {}, OTHERS: {}}
    for label, tensor in tensors.items():
        kind = next((kind for kind in parts if label.startswith(kind)), None)
        if kind is None:
            raise ModelError(f"a tensor {label} that no checkpoint has")
        parts[kind][label.removeprefix(kind)] = tensor
    optim.load_state(optimizer, method.parameters(), parts[OPTIMIZER], numbers)
    method.load_state(parts[METHOD])
    own = _of_rank(parts[OTHERS], rank) if rank else parts[RANDOM]
    if own or not rank:
        set_random_state(own)


def _of_rank(others: Mapping[str, Tensor], rank: int) -> dict[str, Tensor]:
    begin = f"{rank}/"
    return {n.removeprefix(begin): tensor for n, tensor in others.items() if n.startswith(begin)}


def random_state() -> dict[str, Tensor]:
    """The states of torch's generators: `cpu`, and `cuda` where there is a device."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def set_random_state(states: Mapping[str, Tensor]) -> None:
    """Set the generators; `ModelError` if a state is missing, or is of another device."""
    if states.keys() != random_state().keys():
        found, needed = sorted(states), sorted(random_state())
        raise ModelError(
            f"random states of {', '.join(found) or 'nothing'}; here there are {', '.join(needed)}",
            hint="a run goes on only on the kind of device it began on",
        )
    torch.set_rng_state(states["cpu"])
    if "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"])
