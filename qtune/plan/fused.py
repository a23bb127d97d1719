"""Bytes that fused blocks save for the backward pass of one layer, for each token.

Legend as in `activations`. Kept: the layer's input and the second residual, c h each (norms are
made again of them, 8 for their roots); queries, keys and values after rotation, c (q + 2 k), and
the attention's output, c q, with its log-sums; gate and up, 2 c f, which `selective` makes again;
a R, what all adapters' first matrices give; a mask of one byte an input with dropout; DoRA c n of
each output. Norms on heads c (q + k). Gemma's norms are plain: their fp32 input, and their output.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qtune.plan.adapters import DTYPE_BYTES
from qtune.plan.targets import layer_index
from qtune.recipe.methods import LowRankConfig, RosaConfig, SoftPromptConfig, leading, parts_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qtune.plan.adapters import AdaptedLinear
    from qtune.plan.shape import ModelShape
    from qtune.recipe.sections import Recipe

FAMILIES = frozenset(("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "phi3"))
_PLAIN_NORMS = frozenset(("gemma", "gemma2"))
_JOINED = "gate_up_proj"
_MLP = ("gate_proj", "up_proj", _JOINED)


def fuses(recipe: Recipe, shape: ModelShape) -> bool:
    """Whether the blocks of this model are computed fused, with what the recipe attaches."""
    parts = parts_of(recipe.method)
    known = shape.family in FAMILIES and all(
        isinstance(part, LowRankConfig | SoftPromptConfig) and not isinstance(part, RosaConfig)
        for part in parts
    )
    # two adapters on one linear are computed one after the other
    known = known and sum(isinstance(part, LowRankConfig) for part in parts) < 2
    return known and recipe.memory.kernels != "plain"


@dataclass(frozen=True)
class FusedLayer:
    """What one layer keeps, by whether the MLP's widths are kept too."""

    kept: int
    selective: int
    in_flight: int
    final_norm: int


def fused_layer(
    recipe: Recipe,
    shape: ModelShape,
    adapted: Sequence[AdaptedLinear],
    *,
    compute_bytes: int,
    attention: int,
) -> FusedLayer:
    """The largest layer's bytes; `attention`: what its kernel keeps, output included."""
    each, hidden = compute_bytes, shape.hidden_size
    queries, keys = shape.heads * shape.head_dim, shape.key_value_heads * shape.head_dim
    plain_norms = shape.family in _PLAIN_NORMS
    norms = shape.norms_per_layer * 4 * hidden + 2 * each * hidden if plain_norms else 8
    if shape.head_norms:
        norms += each * (queries + keys) + 4 * (shape.heads + shape.key_value_heads)
    all_of, without_mlp = _adapters(recipe, adapted, each)
    residuals = 2 * each * hidden if not plain_norms else 0
    wide = 2 * each * shape.intermediate_size
    # gate and up of one product lie together, as do their gradients
    joined = 2 if any(linear.name.endswith(_JOINED) for linear in shape.linears) else 0
    widest = (4 + joined) * each * shape.intermediate_size
    in_flight = max(widest, 3 * each * queries) + 3 * each * hidden
    if getattr(leading(recipe.method), "dropout", 0.0):
        # the widest input, dropped again
        in_flight += (each + _adapter_bytes(recipe)) * shape.intermediate_size
    return FusedLayer(
        kept=residuals + norms + attention + wide + all_of,
        selective=residuals + norms + attention + without_mlp,
        in_flight=in_flight,
        final_norm=4 * hidden if plain_norms else each * hidden,
    )


def _adapters(
    recipe: Recipe, adapted: Sequence[AdaptedLinear], compute_bytes: int
) -> tuple[int, int]:
    """What the adapters of the fullest layer keep, and what of it `selective` keeps."""
    method = leading(recipe.method)
    if not isinstance(method, LowRankConfig):
        return 0, 0
    layers: dict[int | None, tuple[int, int]] = {}
    for each in adapted:
        linear = each.linear
        size = _adapter_bytes(recipe) * each.rank
        if method.dropout:
            size += linear.in_features
        gain = compute_bytes * linear.out_features if getattr(method, "use_dora", False) else 0
        inside = linear.name.endswith(_MLP)
        layer = layer_index(linear.name)
        kept, selective = layers.get(layer, (0, 0))
        layers[layer] = (kept + size + gain, selective + size + (0 if inside else gain))
    return max(layers.values(), default=(0, 0))


def _adapter_bytes(recipe: Recipe) -> int:
    return DTYPE_BYTES[getattr(leading(recipe.method), "dtype", "float32")]
