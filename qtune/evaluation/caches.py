"""Where the keys and values of a generation are kept: growing, of fixed size, or in 4 bits."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

from qtune.errors import UsageError

if TYPE_CHECKING:
    from qtune.recipe.results import CacheKind

BACKEND, PACKAGE = "quanto", "optimum.quanto"
RESIDUAL = 32  # the newest tokens stay exact


def require_cache(kind: CacheKind, *, place: str) -> None:
    """`UsageError` with the line to type unless what the cache needs is installed."""
    if kind != "quantized":
        return
    try:
        there = importlib.util.find_spec(PACKAGE) is not None
    except ModuleNotFoundError:
        there = False
    if not there:
        raise UsageError(
            "a quantized cache needs the package optimum-quanto",
            place=place,
            hint="pip install optimum-quanto",
        )


def new_cache(kind: CacheKind, model: Any, *, length: int) -> Any:
    """An empty cache for one batch of at most `length` positions; None for the model's own.

    `quantized` holds keys and values in 4 bits (KIVI, Liu et al. 2024), so its answers may differ.
    """
    if kind == "dynamic":
        return None
    from transformers import QuantizedCache, StaticCache

    if kind == "static":
        return StaticCache(config=model.config, max_cache_len=length)
    return QuantizedCache(
        BACKEND,
        model.config,
        nbits=4,
        q_group_size=_group_size(model.config.get_text_config()),
        residual_length=RESIDUAL,
    )


def _group_size(config: Any) -> int:
    """Values that share a scale: those of one head's vector, at most 64."""
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return min(64, int(size))
