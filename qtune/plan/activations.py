"""Bytes of saved activations for one micro-batch of T tokens, as PyTorch's autograd keeps them.

Legend: h hidden, f MLP width, q = heads x head_dim, k = key-value heads x head_dim, c bytes of the
compute dtype, a bytes of the adapter dtype, r rank, m inputs and n outputs of a linear.

A layer keeps, a token:
  norms       RMSNorm: its fp32 input, 4h; LayerNorm: its input, c h; norms on heads 4(q + k)
  attention   queries, keys and values spread over all heads, output: 4 c q, and 4 a head of fp32
              log-sums; eager: 3 c q and, a head and pair of tokens, 4, c below fp32, c if capped
  MLP         gated: gate, its activation and up, 3 c f; else the steps of the activation
  adapters    each: its input in the adapter's dtype a m, a dropout mask, a r; without dropout in
              one dtype siblings share an input; DoRA keeps two products more, (c + a) n; LoRA-FA
              no input, for its A learns nothing; other methods: see `kept`
The policy `layer` keeps the layer inputs, c h each, and one layer's set at a time; `selective`
keeps the products of matrices too: c n of each linear, the attention's output with its log-sums
(eager: its scores), a r of each adapter. While a layer's backward runs, gradients of its widest
tensors exist beside what it keeps. Fused blocks keep less: see `fused`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from qtune.plan.adapters import DTYPE_BYTES
from qtune.plan.fused import fused_layer, fuses
from qtune.plan.kept import kept_by_layer, products_of, unreached
from qtune.plan.reach import first_trained, trained_norms
from qtune.plan.targets import layer_index
from qtune.recipe.methods import LoraFaConfig, LowRankConfig, MethodConfig, RosaConfig, leading

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qtune.plan.adapters import AdaptedLinear
    from qtune.plan.fused import FusedLayer
    from qtune.plan.shape import ModelShape
    from qtune.recipe.sections import Recipe


@dataclass(frozen=True)
class Activations:
    """Bytes by where they come from, each for one token of a micro-batch."""

    layer_input: int
    """Input of one layer."""
    layers: int
    """Layers that a gradient comes to; the others keep nothing."""
    products: int
    """What one layer keeps under `selective` beside its input."""
    kept: int
    """Everything that all layers keep when nothing is recomputed."""
    largest_layer: int
    """The most that one layer keeps."""
    in_flight: int
    """Gradients that exist while one layer's backward runs."""
    ends: int
    """Input of the final norm, its output, and that of the supervised positions."""
    again: float = 0.0
    """Share of the base's products that `selective` computes again."""


def activations_of(
    recipe: Recipe,
    shape: ModelShape,
    adapted: Sequence[AdaptedLinear],
    *,
    compute_bytes: int,
    length: int,
    device: Literal["cpu", "cuda"],
) -> Activations:
    """Activations a token, in rows of `length` tokens."""
    # CUDA's dropout keeps one byte an element, the CPU's a factor in the input's dtype
    method = leading(recipe.method)
    adapter_bytes = DTYPE_BYTES[getattr(method, "dtype", "float32")]
    dropout_mask_bytes = 1 if device == "cuda" else adapter_bytes
    eager = recipe.model.attn_implementation == "eager"
    attention = (_eager if eager else _sdpa)(shape, compute_bytes, length)
    if fuses(recipe, shape):
        if not eager and device == "cpu":
            # attended document by document, where no key is repeated for the heads that share it
            attention -= 2 * compute_bytes * (shape.heads - shape.key_value_heads) * shape.head_dim
        layer = fused_layer(
            recipe, shape, adapted, compute_bytes=compute_bytes, attention=attention
        )
        reached = shape.layers - first_trained(recipe.method, shape)
        return _of_fused(shape, layer, compute_bytes, reached)
    own = _norms_and_mlp(shape, compute_bytes) + attention
    scores = compute_bytes * length if eager else 4
    attended = shape.heads * (compute_bytes * shape.head_dim + scores)
    adapters = _adapters_by_layer(method, adapted, compute_bytes, dropout_mask_bytes)
    others = kept_by_layer(
        recipe.method,
        shape,
        compute_bytes=compute_bytes,
        mask_bytes=dropout_mask_bytes,
        length=length,
    )
    for number, size in others.items():
        adapters[number] = adapters.get(number, 0) + size
    reached = shape.layers - first_trained(recipe.method, shape)
    outputs = compute_bytes * sum(each.out_features for each in shape.linears)
    outputs //= max(1, shape.layers)
    outputs += _first_products(method, adapted) // max(1, reached)
    outputs += products_of(recipe.method, shape) // max(1, reached)
    idle = unreached(recipe.method, shape, own=own, attention=attention)
    final_norm = 4 if shape.root_norms else compute_bytes
    behind = (width for layer, width in trained_norms(recipe.method, shape) if layer is None)
    last = compute_bytes * sum(behind)
    return Activations(
        layer_input=compute_bytes * shape.hidden_size,
        layers=reached,
        products=outputs + attended,
        kept=shape.layers * own + sum(adapters.values()) - idle,
        largest_layer=own + max(adapters.values(), default=0),
        in_flight=_in_flight(recipe, shape, compute_bytes, length if eager else 0),
        ends=(final_norm + 2 * compute_bytes) * shape.hidden_size + last,
    )


def _in_flight(recipe: Recipe, shape: ModelShape, compute_bytes: int, scores: int) -> int:
    """Gradients of the widest tensors of a layer; with dropout the widest input once more."""
    wide = shape.intermediate_size * (2 if shape.gated else 1)
    widest = max(wide, shape.heads * shape.head_dim) + shape.hidden_size
    dropped = 0
    method = leading(recipe.method)
    if getattr(method, "dropout", 0.0):
        dropped = DTYPE_BYTES[getattr(method, "dtype", "float32")] * shape.intermediate_size
    attention = (4 + compute_bytes) * shape.heads * scores
    norm = 8 * shape.hidden_size if shape.root_norms else 0  # its input and its output in fp32
    return max(compute_bytes * widest + dropped + norm, attention)


def _of_fused(
    shape: ModelShape, layer: FusedLayer, compute_bytes: int, reached: int
) -> Activations:
    one_input = compute_bytes * shape.hidden_size
    made_again = 2 * shape.layers * shape.hidden_size * shape.intermediate_size
    return Activations(
        layer_input=one_input,
        layers=reached,
        products=layer.selective - one_input,
        kept=reached * layer.kept,
        largest_layer=layer.kept,
        in_flight=layer.in_flight,
        ends=layer.final_norm + 2 * one_input,
        again=made_again / shape.linear_parameters,
    )


def _first_products(method: MethodConfig, adapted: Sequence[AdaptedLinear]) -> int:
    """The outputs of the first matrices of all adapters."""
    if not isinstance(method, LowRankConfig):
        return 0
    return DTYPE_BYTES[method.dtype] * sum(each.rank for each in adapted)


def _norms_and_mlp(shape: ModelShape, compute_bytes: int) -> int:
    """What one layer keeps of its norms and its MLP."""
    queries, keys = shape.heads * shape.head_dim, shape.key_value_heads * shape.head_dim
    norm = (4 if shape.root_norms else compute_bytes) * shape.hidden_size
    norms = shape.norms_per_layer * norm + (4 * (queries + keys) if shape.head_norms else 0)
    return norms + shape.mlp_tensors * compute_bytes * shape.intermediate_size


def _sdpa(shape: ModelShape, compute_bytes: int, _: int) -> int:
    """What sdpa and flash attention keep of one layer."""
    tensors = 6 if shape.fused_queries else 4
    return tensors * compute_bytes * shape.heads * shape.head_dim + 4 * shape.heads


def _eager(shape: ModelShape, compute_bytes: int, length: int) -> int:
    """What eager attention keeps of one layer; the families without sdpa cap their scores."""
    narrowed = compute_bytes if compute_bytes < 4 else 0
    capped = 0 if shape.sdpa else compute_bytes
    scores = 4 + narrowed + capped
    return shape.heads * (3 * compute_bytes * shape.head_dim + scores * length)


def _adapters_by_layer(
    method: MethodConfig,
    adapted: Sequence[AdaptedLinear],
    compute_bytes: int,
    dropout_mask_bytes: int,
) -> dict[int | None, int]:
    """What the adapters of each layer keep."""
    if not isinstance(method, LowRankConfig):
        return {}
    adapter_bytes = DTYPE_BYTES[method.dtype]
    mask = dropout_mask_bytes if method.dropout else 0
    # untouched inputs are kept once for the siblings that read them, such as q, k and v
    shared = not mask and adapter_bytes == compute_bytes
    read: set[tuple[str, int]] = set()
    kept: dict[int | None, int] = {}
    for each in adapted:
        linear = each.linear
        source = (linear.name.rpartition(".")[0], linear.in_features)
        size = adapter_bytes * each.rank
        if isinstance(method, LoraFaConfig):
            size += mask * linear.in_features  # A learns nothing of its input
        elif not shared or source not in read:
            size += (adapter_bytes + mask) * linear.in_features
        if isinstance(method, RosaConfig) and source not in read:
            size += compute_bytes * linear.in_features  # which the sparse part reads, too
        if getattr(method, "use_dora", False):
            size += (compute_bytes + adapter_bytes) * linear.out_features
        read.add(source)
        layer = layer_index(linear.name)
        kept[layer] = kept.get(layer, 0) + size
    return kept
