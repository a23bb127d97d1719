"""Rank and scale of each module: the first pattern that fits, else the recipe's value."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from qtune.plan.targets import lookup

if TYPE_CHECKING:
    from qtune.recipe.methods import LowRankConfig


def rank_of(config: LowRankConfig, name: str) -> int:
    """r of one module."""
    return lookup(config.rank_pattern, name, config.rank)


def scale_of(config: LowRankConfig, name: str) -> float:
    """alpha/r, or alpha/sqrt(r) for rsLoRA, of one module."""
    rank, alpha = rank_of(config, name), lookup(config.alpha_pattern, name, config.alpha)
    return alpha / math.sqrt(rank) if config.use_rslora else alpha / rank
