"""How many positions a model was made for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from qtune.recipe.methods import LongLoraConfig, PrefixConfig, SoftPromptConfig, parts_of

if TYPE_CHECKING:
    from qtune.recipe.methods import MethodConfig


def reached(known: int | None, rope: Any) -> int | None:
    """The positions of a config.json, or those that its RoPE scaling stretches them to; configs
    differ in whether the first are stretched already."""
    factor = rope.get("factor") if isinstance(rope, Mapping) else None
    if known is None or not isinstance(factor, int | float):
        return known
    return max(known, int(factor * (rope.get("original_max_position_embeddings") or known)))


def with_method(known: int | None, method: MethodConfig) -> int | None:
    """The positions with those that a LongLoRA puts between them."""
    factors = [p.rope_factor or 1 for p in parts_of(method) if isinstance(p, LongLoraConfig)]
    return None if known is None else int(known * max(factors, default=1))


def positions_of(config: Mapping[str, Any], method: MethodConfig) -> int | None:
    """The positions that a method finds in a model of this config.json and leaves to the rows;
    None without a limit."""
    known = config.get("max_position_embeddings") or config.get("n_positions")
    rope = config.get("rope_parameters") or config.get("rope_scaling")
    found = with_method(reached(known, rope), method)
    return None if found is None else found - virtual_tokens(method)


def virtual_tokens(method: MethodConfig) -> int:
    """The positions that a method takes before each row."""
    kinds = (SoftPromptConfig, PrefixConfig)
    return sum(part.num_virtual_tokens for part in parts_of(method) if isinstance(part, kinds))
