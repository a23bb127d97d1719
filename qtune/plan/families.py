"""The model families the plan knows, and how transformers names and shapes their modules.

Everything here is compared with transformers itself on the meta device in the tests.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from qtune.plan.positions import reached
from qtune.plan.shape import LinearShape, ModelShape, TensorShape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from qtune.plan.fields import ConfigFields


@dataclass(frozen=True, kw_only=True)
class Decoder:
    """How a Llama-like family differs from Llama; the numbers are transformers' own defaults."""

    bias: Literal["config", "query_key_value", "none"] = "none"
    mlp_bias: bool = False
    """The family reads the key mlp_bias."""
    fused: bool = False
    """qkv_proj and gate_up_proj instead of five modules."""
    head_dim: int | None = None
    key_value_heads: int | None = None
    head_norms: bool = False
    norms: tuple[str, ...] = ("input_layernorm", "post_attention_layernorm")
    tied: bool = False
    sdpa: bool = True


_GEMMA_NORMS = (
    "input_layernorm",
    "post_attention_layernorm",
    "pre_feedforward_layernorm",
    "post_feedforward_layernorm",
)
DECODERS: dict[str, Decoder] = {
    "llama": Decoder(bias="config", mlp_bias=True),
    "mistral": Decoder(key_value_heads=8),
    "qwen2": Decoder(bias="query_key_value", key_value_heads=32),
    "qwen3": Decoder(bias="config", head_dim=128, key_value_heads=32, head_norms=True),
    "gemma": Decoder(bias="config", head_dim=256, key_value_heads=16, tied=True),
    "gemma2": Decoder(
        bias="config", head_dim=256, key_value_heads=4, norms=_GEMMA_NORMS, tied=True, sdpa=False
    ),
    "gemma3_text": Decoder(
        bias="config",
        head_dim=256,
        key_value_heads=4,
        head_norms=True,
        norms=_GEMMA_NORMS,
        tied=True,
    ),
    "phi3": Decoder(fused=True),
}


def build(family: str, fields: ConfigFields) -> ModelShape:
    """The shape of a known family; `ModelError` for a missing or impossible value."""
    return BUILDERS[family](family, fields)


def _decoder(family: str, fields: ConfigFields) -> ModelShape:
    traits = DECODERS[family]
    hidden, layers = fields.size("hidden_size"), fields.size("num_hidden_layers")
    heads, width = fields.size("num_attention_heads"), fields.size("intermediate_size")
    kv_heads = fields.size("num_key_value_heads", default=traits.key_value_heads or heads)
    head_dim = fields.size("head_dim", default=traits.head_dim or max(1, hidden // heads))
    vocabulary = fields.size("vocab_size")
    if heads % kv_heads:
        raise fields.fault(
            "num_key_value_heads", f"is {kv_heads}, which {heads} heads cannot share"
        )
    block = tuple(
        _decoder_linears(
            traits,
            fields,
            hidden=hidden,
            width=width,
            query=heads * head_dim,
            kv=kv_heads * head_dim,
        )
    )
    norms = [(norm, hidden) for norm in traits.norms]
    if traits.head_norms:
        norms += [("self_attn.q_norm", head_dim), ("self_attn.k_norm", head_dim)]
    return ModelShape(
        family=family,
        hidden_size=hidden,
        intermediate_size=width,
        layers=layers,
        heads=heads,
        key_value_heads=kv_heads,
        head_dim=head_dim,
        vocab_size=vocabulary,
        max_positions=_positions(fields),
        tied=fields.flag("tie_word_embeddings", default=traits.tied),
        gated=True,
        mlp_tensors=3,
        root_norms=True,
        norms_per_layer=len(traits.norms),
        head_norms=traits.head_norms,
        sdpa=traits.sdpa,
        linears=_repeated("model.layers", layers, block),
        other=(
            TensorShape("model.embed_tokens.weight", (vocabulary, hidden)),
            *(
                TensorShape(f"model.layers.{layer}.{norm}.weight", (size,))
                for layer in range(layers)
                for norm, size in norms
            ),
            TensorShape("model.norm.weight", (hidden,)),
        ),
        head=LinearShape("lm_head", hidden, vocabulary, quantizable=False),
    )


def _positions(fields: ConfigFields) -> int | None:
    rope = fields.present("rope_parameters", "rope_scaling")
    return reached(fields.optional_size("max_position_embeddings"), rope)


def _decoder_linears(
    traits: Decoder, fields: ConfigFields, *, hidden: int, width: int, query: int, kv: int
) -> Iterator[LinearShape]:
    everywhere = traits.bias == "config" and fields.flag("attention_bias", default=False)
    bias = everywhere or traits.bias == "query_key_value"
    if traits.fused:
        yield LinearShape("self_attn.o_proj", query, hidden)
        yield LinearShape("self_attn.qkv_proj", hidden, query + 2 * kv)
        yield LinearShape("mlp.gate_up_proj", hidden, 2 * width)
        yield LinearShape("mlp.down_proj", width, hidden)
        return
    mlp_bias = traits.mlp_bias and fields.flag("mlp_bias", default=False)
    yield LinearShape("self_attn.q_proj", hidden, query, bias)
    yield LinearShape("self_attn.k_proj", hidden, kv, bias)
    yield LinearShape("self_attn.v_proj", hidden, kv, bias)
    yield LinearShape("self_attn.o_proj", query, hidden, everywhere)
    yield LinearShape("mlp.gate_proj", hidden, width, mlp_bias)
    yield LinearShape("mlp.up_proj", hidden, width, mlp_bias)
    yield LinearShape("mlp.down_proj", width, hidden, mlp_bias)


def _gpt2(family: str, fields: ConfigFields) -> ModelShape:
    """GPT-2: Conv1D modules (weights stored transposed), learned positions, LayerNorms."""
    hidden, layers = (
        fields.size("n_embd", "hidden_size"),
        fields.size("n_layer", "num_hidden_layers"),
    )
    positions = fields.size("n_positions", "max_position_embeddings", default=1024)
    width = fields.size("n_inner", default=4 * hidden)
    vocabulary = fields.size("vocab_size")
    heads = _whole_heads(fields, hidden, "n_head", "num_attention_heads")
    # Conv1D holds its weight transposed, which bitsandbytes' layers do not: it stays in 16-bit
    block = (
        LinearShape("attn.c_attn", hidden, 3 * hidden, bias=True, quantizable=False),
        LinearShape("attn.c_proj", hidden, hidden, bias=True, quantizable=False),
        LinearShape("mlp.c_fc", hidden, width, bias=True, quantizable=False),
        LinearShape("mlp.c_proj", width, hidden, bias=True, quantizable=False),
    )
    return ModelShape(
        family=family,
        hidden_size=hidden,
        intermediate_size=width,
        layers=layers,
        heads=heads,
        key_value_heads=heads,
        head_dim=hidden // heads,
        vocab_size=vocabulary,
        max_positions=positions,
        tied=fields.flag("tie_word_embeddings", default=True),
        gated=False,
        mlp_tensors=_activation_tensors(fields, "activation_function", default="gelu_new"),
        root_norms=False,
        norms_per_layer=2,
        head_norms=False,
        linears=_repeated("transformer.h", layers, block),
        other=(
            TensorShape("transformer.wte.weight", (vocabulary, hidden)),
            TensorShape("transformer.wpe.weight", (positions, hidden)),
            *_layer_norms("transformer.h", layers, ("ln_1", "ln_2"), hidden),
            *_layer_norm("transformer.ln_f", hidden),
        ),
        head=LinearShape("lm_head", hidden, vocabulary, quantizable=False),
    )


def _gpt_neox(family: str, fields: ConfigFields) -> ModelShape:
    """GPT-NeoX and Pythia: fused query_key_value, biases throughout, LayerNorms."""
    hidden, layers = fields.size("hidden_size"), fields.size("num_hidden_layers")
    width, vocabulary = fields.size("intermediate_size"), fields.size("vocab_size")
    heads = _whole_heads(fields, hidden, "num_attention_heads")
    bias = fields.flag("attention_bias", default=True)
    block = (
        LinearShape("attention.query_key_value", hidden, 3 * hidden, bias),
        LinearShape("attention.dense", hidden, hidden, bias),
        LinearShape("mlp.dense_h_to_4h", hidden, width, bias=True),
        LinearShape("mlp.dense_4h_to_h", width, hidden, bias=True),
    )
    norms = ("input_layernorm", "post_attention_layernorm")
    return ModelShape(
        family=family,
        hidden_size=hidden,
        intermediate_size=width,
        layers=layers,
        heads=heads,
        key_value_heads=heads,
        head_dim=hidden // heads,
        vocab_size=vocabulary,
        max_positions=_positions(fields),
        tied=fields.flag("tie_word_embeddings", default=False),
        gated=False,
        mlp_tensors=_activation_tensors(fields, "hidden_act", default="gelu"),
        root_norms=False,
        norms_per_layer=2,
        head_norms=False,
        fused_queries=True,
        linears=_repeated("gpt_neox.layers", layers, block),
        other=(
            TensorShape("gpt_neox.embed_in.weight", (vocabulary, hidden)),
            *_layer_norms("gpt_neox.layers", layers, norms, hidden),
            *_layer_norm("gpt_neox.final_layer_norm", hidden),
        ),
        head=LinearShape("lm_head", hidden, vocabulary, quantizable=False),
    )


def _whole_heads(fields: ConfigFields, hidden: int, *keys: str) -> int:
    heads = fields.size(*keys)
    if hidden % heads:
        raise fields.fault(keys[0], f"is {heads}, which does not divide the hidden size {hidden}")
    return heads


def _activation_tensors(fields: ConfigFields, key: str, *, default: str) -> int:
    """An activation composed in Python keeps its steps, a native one its input."""
    return 4 if (fields.present(key) or default) in ("gelu_new", "gelu_fast") else 1


def _repeated(prefix: str, layers: int, block: tuple[LinearShape, ...]) -> tuple[LinearShape, ...]:
    return tuple(
        replace(linear, name=f"{prefix}.{layer}.{linear.name}")
        for layer in range(layers)
        for linear in block
    )


def _layer_norms(
    prefix: str, layers: int, norms: tuple[str, ...], hidden: int
) -> Iterator[TensorShape]:
    for layer in range(layers):
        for norm in norms:
            yield from _layer_norm(f"{prefix}.{layer}.{norm}", hidden)


def _layer_norm(name: str, hidden: int) -> Iterator[TensorShape]:
    yield TensorShape(f"{name}.weight", (hidden,))
    yield TensorShape(f"{name}.bias", (hidden,))


BUILDERS: dict[str, Callable[[str, ConfigFields], ModelShape]] = {
    **dict.fromkeys(DECODERS, _decoder),
    "gpt2": _gpt2,
    "gpt_neox": _gpt_neox,
}
