"""Optimizers by name, from bitsandbytes and torch.

8-bit states are block-wise quantised for tensors of at least 4,096 elements (Dettmers et al.
2022). Paged states lie in unified memory on CUDA and move to the host under pressure; a CPU has
nothing to page from, so there the same optimizer runs with ordinary tensors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from qtune.ops.nf4 import library
from qtune.registry import Registry

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from qtune.recipe.steps import OptimSection

OPTIMIZERS = Registry(
    "optimizer",
    {
        "paged_adamw_32bit": "bitsandbytes.optim:AdamW32bit",
        "paged_adamw_8bit": "bitsandbytes.optim:AdamW8bit",
        "adamw_8bit": "bitsandbytes.optim:AdamW8bit",
        "paged_lion_8bit": "bitsandbytes.optim:Lion8bit",
        "lion_8bit": "bitsandbytes.optim:Lion8bit",
        "ademamix_8bit": "bitsandbytes.optim:AdEMAMix8bit",
        "adamw": "torch.optim:AdamW",
        "sgd": "qtune.optim.descent:DecoupledSGD",
    },
)
# Pagliardini et al. 2024: the slow moment of AdEMAMix
SLOW_DECAY = 0.9999


def make(section: OptimSection, groups: list[dict[str, Any]]) -> Optimizer:
    """The optimizer of a recipe over a method's parameter groups.

    Groups carry their own `lr` and `weight_decay`; each one's peak is kept as `initial_lr`, which
    `set_learning_rate` scales.
    """
    for group in groups:
        group.setdefault("initial_lr", group.get("lr", section.learning_rate))
    settings: dict[str, Any] = {
        "lr": section.learning_rate,
        "weight_decay": section.weight_decay,
    }
    fast, slow = section.betas
    match section.name:
        case "sgd":
            settings |= {"momentum": fast, "fused": _on_cuda(groups)}
        case "ademamix_8bit":
            settings |= {"betas": (fast, slow, SLOW_DECAY), "eps": section.eps}
        case "lion_8bit" | "paged_lion_8bit":
            settings["betas"] = (fast, slow)
        case "adamw":
            settings |= {"betas": (fast, slow), "eps": section.eps}
            # fused: one kernel for all tensors, which can skip an update by itself
            settings["fused" if _on_cuda(groups) else "foreach"] = True
        case _:
            settings |= {"betas": (fast, slow), "eps": section.eps}
    library()  # quiets the log lines of bitsandbytes before the table imports it
    if section.name.startswith("paged_"):
        settings["is_paged"] = _on_cuda(groups)
    optimizer: Optimizer = OPTIMIZERS[section.name](groups, **settings)
    return optimizer


def _on_cuda(groups: list[dict[str, Any]]) -> bool:
    return all(parameter.is_cuda for group in groups for parameter in group["params"])


def set_learning_rate(optimizer: Optimizer, factor: float) -> float:
    """Scale every group's peak by `factor`; returns the learning rate of the first group."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor
    return float(optimizer.param_groups[0]["lr"])


def state_bytes(optimizer: Optimizer) -> int:
    """Bytes of all state tensors, wherever they lie."""
    return sum(
        value.numel() * value.element_size()
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, torch.Tensor)
    )
