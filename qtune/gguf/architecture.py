"""What llama.cpp has to know of a model's shape, from its config and back to one.

llama.cpp turns neighbouring channels of a Llama's queries and keys together (interleaved rotary
embedding) where transformers turns channel i with i + d/2; so their rows are reordered on the way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qtune.errors import ModelError
from qtune.gguf import rope
from qtune.gguf.library import library

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@dataclass(frozen=True)
class Architecture:
    """A family as llama.cpp names it; `reordered`: the rows of its queries and keys are."""

    name: str
    reordered: bool


LLAMA = Architecture("llama", reordered=True)
BY_MODEL_TYPE = {
    "llama": LLAMA,
    "mistral": LLAMA,
    "qwen2": Architecture("qwen2", reordered=False),
    "qwen3": Architecture("qwen3", reordered=False),
}
REASONS = {
    "mixtral": "experts are not written",
    "qwen2_moe": "experts are not written",
    "qwen3_moe": "experts are not written",
}


@dataclass(frozen=True)
class Shape:
    """The figures of a model that GGUF carries."""

    architecture: Architecture
    vocabulary: int
    context: int
    width: int
    layers: int
    inner: int
    heads: int
    key_heads: int
    head_width: int
    epsilon: float
    tied: bool
    rope: rope.Rope
    notes: tuple[str, ...] = ()


def shape_of(config: Any, *, place: str) -> Shape:
    """The shape of a transformers config; `ModelError` for what llama.cpp computes otherwise."""
    kind = str(config.model_type)
    if kind not in BY_MODEL_TYPE:
        raise ModelError(
            f"no GGUF is written of the model type {kind!r}"
            + (f": {REASONS[kind]}" if kind in REASONS else ""),
            place=place,
            hint=f"known: {', '.join(sorted(BY_MODEL_TYPE))}; llama.cpp's own converter knows more",
        )
    if config.hidden_act not in ("silu", "swish"):
        raise ModelError(
            f"hidden_act {config.hidden_act!r}: llama.cpp computes {kind} with silu", place=place
        )
    heads = int(config.num_attention_heads)
    head_width = getattr(config, "head_dim", None) or config.hidden_size // heads
    context, notes = _context(config)
    return Shape(
        architecture=BY_MODEL_TYPE[kind],
        vocabulary=int(config.vocab_size),
        context=context,
        width=int(config.hidden_size),
        layers=int(config.num_hidden_layers),
        inner=int(config.intermediate_size),
        heads=heads,
        key_heads=int(getattr(config, "num_key_value_heads", None) or heads),
        head_width=int(head_width),
        epsilon=float(config.rms_norm_eps),
        tied=bool(config.tie_word_embeddings),
        rope=rope.of_config(config, place=place),
        notes=notes,
    )


def _context(config: Any) -> tuple[int, tuple[str, ...]]:
    """The longest context, and what is to be told of it: llama.cpp slides no window over these."""
    longest = int(config.max_position_embeddings)
    window = getattr(config, "sliding_window", None)
    if window is None or not getattr(config, "use_sliding_window", True) or window >= longest:
        return longest, ()
    note = f"the context is cut from {longest:,} to the sliding window of {int(window):,} tokens"
    return int(window), (note,)


def describe(writer: Any, shape: Shape) -> None:
    """Tell a `GGUFWriter` the shape."""
    writer.add_vocab_size(shape.vocabulary)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.inner)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.key_heads)
    writer.add_key_length(shape.head_width)
    writer.add_value_length(shape.head_width)
    writer.add_layer_norm_rms_eps(shape.epsilon)
    writer.add_rope_dimension_count(shape.head_width)
    rope.describe(writer, shape.rope)


def config_of(fields: Mapping[str, Any], names: set[str], *, place: Path) -> Any:
    """The transformers config that a file's fields and tensor names describe."""
    import transformers

    name = fields.get("general.architecture")
    kinds = {"llama": "LlamaConfig", "qwen2": "Qwen2Config", "qwen3": "Qwen3Config"}
    if name not in kinds:
        raise ModelError(f"the architecture {name!r} cannot be read back", place=str(place))
    own = {
        key.removeprefix(f"{name}."): value
        for key, value in fields.items()
        if key.startswith(f"{name}.")
    }
    settings = {
        "vocab_size": own["vocab_size"],
        "max_position_embeddings": own["context_length"],
        "hidden_size": own["embedding_length"],
        "num_hidden_layers": own["block_count"],
        "intermediate_size": own["feed_forward_length"],
        "num_attention_heads": own["attention.head_count"],
        "num_key_value_heads": own["attention.head_count_kv"],
        "head_dim": own["attention.key_length"],
        "rms_norm_eps": own["attention.layer_norm_rms_epsilon"],
        "tie_word_embeddings": "output.weight" not in names,
        "rope_parameters": rope.read(own, plain="rope_freqs.weight" not in names),
    }
    if name != "qwen2":  # which always has three biases
        settings["attention_bias"] = "blk.0.attn_q.bias" in names
    if name == "llama":
        settings["mlp_bias"] = "blk.0.ffn_gate.bias" in names
    return getattr(transformers, kinds[name])(**settings)


def model_arch(architecture: Architecture) -> Any:
    """gguf's own constant of an architecture."""
    constants = library()
    by_name = {value: key for key, value in constants.MODEL_ARCH_NAMES.items()}
    return by_name[architecture.name]
