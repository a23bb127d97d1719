"""Bytes of saved activations for one micro-batch of T tokens, as PyTorch's autograd keeps them.

Legend: h hidden, f MLP width, q = heads x head_dim, k = key-value heads x head_dim, c bytes of the
compute dtype, a bytes of the adapter dtype, r rank, m inputs and n outputs of a linear.

A layer keeps, a token:
  norms       RMSNorm: its fp32 input, 4h; LayerNorm: its input, c h; norms on heads 4(q + k)
  attention   queries, keys and values spread over all heads, output: 4 c q, and 4 a head of fp32
              log-sums; eager attention also keeps its scores, (4 + c) heads a pair of tokens
  MLP         gated: gate, its activation and up, 3 c f; else four tensors of c f
  adapters    each: its dropped-out input a m, the mask, a r; DoRA also two products, (c + a) n
Checkpointing keeps the layer inputs, c h each, and one layer's set at a time. While a layer's
backward runs, two of its widest tensors' gradients exist beside what it keeps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qtune.plan.adapters import adapted_linears
from qtune.plan.targets import layer_index
from qtune.recipe.methods import LoraConfig, MethodConfig

if TYPE_CHECKING:
    from qtune.plan.shape import ModelShape
    from qtune.recipe.sections import Recipe

_UNGATED_TENSORS = 4


@dataclass(frozen=True)
class Activations:
    """Bytes by where they come from, each for one token of a micro-batch."""

    layer_input: int
    """Input of one layer, what checkpointing keeps."""
    kept: int
    """Everything that all layers keep without checkpointing."""
    largest_layer: int
    """The most that one layer keeps."""
    in_flight: int
    """Gradients that exist while one layer's backward runs."""
    ends: int
    """Embeddings before the first layer, final norm after the last."""


def activations_of(
    recipe: Recipe, shape: ModelShape, *, compute_bytes: int, length: int, dropout_mask_bytes: int
) -> Activations:
    """Activations a token, in rows of `length` tokens."""
    scores = shape.heads * (4 + compute_bytes) * length
    eager = recipe.model.attn_implementation == "eager"
    own = _layer(shape, compute_bytes) + (scores if eager else 0)
    adapters = _adapters_by_layer(recipe.method, shape, compute_bytes, dropout_mask_bytes)
    widest = max(shape.intermediate_size * (2 if shape.gated else 1), shape.heads * shape.head_dim)
    return Activations(
        layer_input=compute_bytes * shape.hidden_size,
        kept=shape.layers * own + sum(adapters.values()),
        largest_layer=own + max(adapters.values(), default=0),
        in_flight=2 * compute_bytes * widest,
        ends=(4 + compute_bytes) * shape.hidden_size,
    )


def _layer(shape: ModelShape, compute_bytes: int) -> int:
    """What one layer keeps of its own, without adapters."""
    queries, keys = shape.heads * shape.head_dim, shape.key_value_heads * shape.head_dim
    norm = (4 if shape.root_norms else compute_bytes) * shape.hidden_size
    norms = shape.norms_per_layer * norm + (4 * (queries + keys) if shape.head_norms else 0)
    attention = 4 * compute_bytes * queries + 4 * shape.heads
    tensors = 3 if shape.gated else _UNGATED_TENSORS
    return norms + attention + tensors * compute_bytes * shape.intermediate_size


def _adapters_by_layer(
    method: MethodConfig, shape: ModelShape, compute_bytes: int, dropout_mask_bytes: int
) -> dict[int | None, int]:
    """What the adapters of each layer keep."""
    if not isinstance(method, LoraConfig):
        return {}
    adapter_bytes = 4 if method.dtype == "float32" else 2
    mask = dropout_mask_bytes if method.dropout else 0
    kept: dict[int | None, int] = {}
    for adapted in adapted_linears(method, shape):
        linear = adapted.linear
        size = (adapter_bytes + mask) * linear.in_features + adapter_bytes * adapted.rank
        if method.use_dora:
            size += (compute_bytes + adapter_bytes) * linear.out_features
        layer = layer_index(linear.name)
        kept[layer] = kept.get(layer, 0) + size
    return kept
