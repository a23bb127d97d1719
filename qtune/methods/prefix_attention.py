"""Learned keys and values before those of the tokens, through transformers' attention interface.

B rows, K key-value heads, T queries, S keys of tokens, P prefix positions, D head size. The prefix
is seen by every query; a padded, packed or cached mask stays what it is for the tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from qtune.methods.adapter import Adapter
from qtune.methods.attention_interface import plain

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

IMPLEMENTATION = "qtune_prefix"
CHILD = "prefix"


class Prefix(Adapter):
    """Keys and values of one layer, [2, K, P, D] in fp32; a child of its attention module."""

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.values = nn.Parameter(start.clone())

    @property
    def positions(self) -> int:
        """P."""
        return self.values.shape[2]

    def tensors(self) -> dict[str, nn.Parameter]:
        """The prefix of this layer."""
        return {"prefix": self.values}


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **settings: Any,
) -> tuple[Tensor, Tensor | None]:
    """transformers' own attention over prefix and tokens, or over tokens where it is off."""
    prefix = getattr(module, CHILD, None)
    if prefix is not None and prefix.enabled:
        mask = causal(query, key) if attention_mask is None else attention_mask
        key, value = (
            torch.cat([own.to(tokens.dtype).expand(len(tokens), -1, -1, -1), tokens], dim=2)
            for own, tokens in zip(prefix.values, (key, value), strict=True)
        )
        attention_mask = seen(mask, prefix.values.shape[2])
    return plain(module, query, key, value, attention_mask, **settings)


def causal(query: Tensor, key: Tensor) -> Tensor:
    """What queries at the end of the keys may see, [1, 1, T, S]; transformers leaves it out where
    the kernel knows it by itself."""
    length, total = query.shape[2], key.shape[2]
    allowed = torch.ones(length, total, dtype=torch.bool, device=query.device)
    return allowed.tril(total - length)[None, None]


def seen(mask: Tensor, count: int) -> Tensor:
    """A mask [B, 1, T, S], boolean or added to the scores, with P open keys more in front."""
    open_value = True if mask.dtype == torch.bool else 0.0
    front = mask.new_full((*mask.shape[:-1], count), open_value)
    return torch.cat([front, mask], dim=-1)


def shift_positions(decoder: nn.Module, prefix: Prefix) -> RemovableHandle:
    """Count the tokens' positions from P on while the prefix is on, until the handle is removed."""

    def before(
        _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if not prefix.enabled:
            return None
        positions = kwargs.get("position_ids")
        if positions is None:
            positions = _positions(args, kwargs)
        return args, {**kwargs, "position_ids": positions + prefix.positions}

    return decoder.register_forward_pre_hook(before, with_kwargs=True)


def _positions(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Positions as transformers counts them: behind the cache, from each row's first real token."""
    tokens = args[0] if args else kwargs.get("input_ids")
    tokens = kwargs["inputs_embeds"] if tokens is None else tokens
    length = tokens.shape[1]
    mask, cache = kwargs.get("attention_mask"), kwargs.get("past_key_values")
    if isinstance(mask, Tensor) and mask.ndim == 2:
        return (mask.long().cumsum(dim=1) - 1).clamp_min(0)[:, -length:]
    past = cache.get_seq_length() if cache is not None else 0
    return torch.arange(past, past + length, device=tokens.device).unsqueeze(0)
