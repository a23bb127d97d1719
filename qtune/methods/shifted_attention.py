"""Shifted sparse attention (Chen et al. 2023): while training, each token sees its own group alone.

Legend: B rows, H heads, T tokens, D head size, G tokens of a group. The first half of the heads
attends in groups [kG, (k+1)G), the other half in groups shifted by G/2, whose first and last are
half ones: nothing wraps around, so no token sees the future. In evaluation: the model's own, full.
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from qtune.methods.adapter import Adapter
from qtune.methods.attention_interface import plain

if TYPE_CHECKING:
    from collections.abc import Iterable

IMPLEMENTATION = "qtune_shifted"
CHILD = "shifted"


class Shifted(Adapter):
    """Says to an attention module, whose child it is, how large its groups are; learns nothing."""

    group: int | None = None
    """Tokens of a group; before the longest row is known, the share of what is computed."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def tensors(self) -> dict[str, nn.Parameter]:
        """None."""
        return {}


def put_in(attentions: Iterable[nn.Module], share: float) -> dict[str, Shifted]:
    """A child for each attention; by name, as adapters are."""
    found = {}
    for number, attention_module in enumerate(attentions):
        found[f"layers.{number}.{CHILD}"] = child = Shifted(share)
        attention_module.add_module(CHILD, child)
    return found


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **settings: Any,
) -> tuple[Tensor, Tensor | None]:
    """In groups while training, transformers' own otherwise."""
    shifted: Any = getattr(module, CHILD, None)
    length = query.shape[2]
    grouped = module.training and shifted is not None and shifted.enabled and shifted.share < 1
    group = (shifted.group or ceil(length * shifted.share)) if grouped else length
    # the first group of shifted heads has group // 2 tokens
    if not grouped or length <= max(group // 2, 1) or key.shape[2] != length:
        return plain(module, query, key, value, attention_mask, **settings)
    repeats = query.shape[1] // key.shape[1]
    key, value = (states.repeat_interleave(repeats, dim=1) for states in (key, value))
    half = query.shape[1] // 2
    outputs = [
        in_groups(
            *(states[:, heads] for states in (query, key, value)),
            group=size,
            shift=shift,
            mask=attention_mask,
            dropout=settings.get("dropout", 0.0),
            scale=settings.get("scaling"),
        )
        for heads, size, shift in (
            (slice(None, half), min(group, length), 0),
            (slice(half, None), group, group // 2),
        )
    ]
    return torch.cat(outputs, dim=1).transpose(1, 2).contiguous(), None


def in_groups(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    group: int,
    shift: int,
    mask: Tensor | None,
    dropout: float = 0.0,
    scale: float | None = None,
) -> Tensor:
    """Causal attention [B, H, T, D] inside groups of which the first has `shift` tokens if not 0.

    `mask` [B, 1, T, T], boolean or added to the scores, narrows what is seen.
    """
    length, size = query.shape[2:]
    front = (group - shift) % group
    count = ceil((front + length) / group)
    back = count * group - front - length
    apart_query, apart_key, apart_value = (
        functional.pad(one, (0, 0, front, back))
        .unflatten(2, (count, group))
        .transpose(1, 2)
        .flatten(0, 1)
        for one in (query, key, value)
    )
    seen = _mask_of_groups(mask, (front, back), count, group, like=query)
    if seen.shape[0] not in (1, count * len(query)):
        seen = seen.repeat(len(query), 1, 1, 1)
    output = functional.scaled_dot_product_attention(
        apart_query, apart_key, apart_value, attn_mask=seen, dropout_p=dropout, scale=scale
    )
    heads = query.shape[1]
    whole = output.reshape(len(query), count, heads, group, size).transpose(1, 2).flatten(2, 3)
    return whole[:, :, front : front + length]


def _mask_of_groups(
    mask: Tensor | None, pads: tuple[int, int], count: int, group: int, *, like: Tensor
) -> Tensor:
    """What is seen in each group, [B x count, 1, G, G] or, without a mask, [count, 1, G, G].

    A padding place sees itself, or its softmax would be of nothing; no token sees padding.
    """
    front, back = pads
    own = torch.eye(group, dtype=torch.bool, device=like.device)
    place = torch.arange(count * group, device=like.device).view(count, group)
    real = (place >= front) & (place < count * group - back)
    causal = torch.ones(group, group, dtype=torch.bool, device=like.device).tril()
    allowed: Tensor = causal & real[:, None, :] & real[:, :, None] | own
    if mask is None:
        return allowed[:, None]
    base = functional.pad(mask.expand(-1, 1, -1, -1), (front, back, front, back))[:, 0]
    blocks = base.unflatten(1, (count, group)).unflatten(3, (count, group))
    each = torch.arange(count, device=like.device)
    diagonal: Tensor = blocks[:, each, :, each].transpose(0, 1)  # [B, count, G, G]
    if mask.dtype == torch.bool:
        return ((diagonal & allowed) | own).flatten(0, 1)[:, None]
    closed = torch.finfo(mask.dtype).min
    added = diagonal.masked_fill(~allowed, closed).masked_fill(own, 0.0)
    return added.flatten(0, 1)[:, None]
