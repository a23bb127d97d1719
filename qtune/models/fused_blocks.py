"""Blocks of transformers that compute with qtune's fused ops, under their own names.

A fused block is an instance of a class made from the block's own and one of the mixins here, so
everything but its forward is the block's: parameters, children, attributes, `isinstance`. Whatever
a mixin does not expect goes to the block's own forward: evaluation, a key-value cache, layers that
are no longer what they were when it was fused.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import torch

from qtune.ops import document_attention, gated_mlp, lora_linear, rms_norm, rotary
from qtune.ops.projection import why_not

if TYPE_CHECKING:
    from torch import Tensor, nn

    from qtune.ops.document_attention import Document

ATTENTION = ("q_proj", "k_proj", "v_proj", "qkv_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "gate_up_proj", "down_proj")
_ACTIVATIONS = {
    "SiLU": "silu",
    "SiLUActivation": "silu",
    "GELUTanh": "gelu_tanh",
    "GELUActivation": "gelu",
}


class FusedMlp:
    """A gated MLP in one node."""

    recompute_inside = False
    """Keep the input alone and make gate and up again in the backward pass."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., H] -> [..., H]."""
        layers = children(self, MLP)
        if not _takes(x, layers):
            return super().forward(x)  # type: ignore[misc, no-any-return]
        gate, *up, down = layers
        mlp = gated_mlp.Mlp(gate, up[0] if up else None, down, activation_of(self))
        return gated_mlp.fused(x, mlp, recompute=self.recompute_inside)


class FusedNorm:
    """An RMSNorm that keeps its input in its own dtype, and whose output need not be kept."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., M] -> [..., M]."""
        norm: Any = self
        if not (is_frozen(norm) and torch.is_grad_enabled() and x.dtype == norm.weight.dtype):
            return super().forward(x)  # type: ignore[misc, no-any-return]
        return rms_norm.fused(x, norm.weight, norm.variance_epsilon)


class FusedAttention:
    """Attention whose q, k and v are one node, and its output projection another."""

    def forward(
        self,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor] | None = None,
        attention_mask: Tensor | None = None,
        past_key_values: Any = None,
        **keywords: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """[B, T, H] -> ([B, T, H], attention weights where they are asked for)."""
        block: Any = self
        layers = children(block, ATTENTION)
        if past_key_values is not None or not _takes(hidden_states, layers):
            return super().forward(  # type: ignore[misc, no-any-return]
                hidden_states,
                position_embeddings=position_embeddings,
                attention_mask=attention_mask,
                past_key_values=past_key_values,
                **keywords,
            )
        assert position_embeddings is not None
        inputs = hidden_states.shape[:-1]
        query, key, value = (
            output.view(*inputs, -1, block.head_dim)
            for output in _apart(block, lora_linear.fused(hidden_states, layers[:-1]))
        )
        if hasattr(block, "q_norm"):
            query, key = block.q_norm(query), block.k_norm(key)
        query, key, value = (states.transpose(1, 2) for states in (query, key, value))
        query, key = rotary.fused(query, key, *position_embeddings)
        documents = _documents(block, query, attention_mask)
        if documents is not None:
            weights = None
            output = document_attention.fused(query, key, value, documents, scale=block.scaling)
        else:
            output, weights = _interface(block)(
                block,
                query,
                key,
                value,
                attention_mask,
                dropout=block.attention_dropout if block.training else 0.0,
                scaling=block.scaling,
                **_EXTRAS[plain_class(block).__name__](block),
                **keywords,
            )
        (output,) = lora_linear.fused(output.reshape(*inputs, -1), layers[-1:])
        return output, weights


def children(block: Any, names: tuple[str, ...]) -> list[nn.Module]:
    """The block's layers, as they are now: those of the names that it has."""
    return [getattr(block, name) for name in names if hasattr(block, name)]


def _apart(block: Any, outputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """q, k and v of three linears, or of one that has all (Phi-3)."""
    if len(outputs) > 1:
        return outputs
    shares = block.num_key_value_heads * block.head_dim
    rest = outputs[0].shape[-1] - 2 * shares
    query, key, value = torch.split(outputs[0], [rest, shares, shares], dim=-1)
    # attention keeps the values: apart, for a part would hold all three
    return query, key, value.contiguous()


def is_frozen(norm: Any) -> bool:
    """Whether no gradient is wanted for a norm's weight."""
    return not norm.weight.requires_grad


def activation_of(mlp: Any) -> str:
    """The name of an MLP's activation in `gated_mlp.ACTIVATIONS`, or "" for an unknown one."""
    function = mlp.activation_fn if hasattr(mlp, "activation_fn") else mlp.act_fn
    if getattr(getattr(function, "act", None), "__name__", "").startswith("_gelu_python"):
        return ""
    return _ACTIVATIONS.get(type(function).__name__, "")


def _takes(x: Tensor, layers: list[nn.Module]) -> bool:
    """Whether the fused way is the one to take for this call."""
    return torch.is_grad_enabled() and why_not(layers, x.dtype) is None


def plain_class(block: Any) -> type:
    """The class of transformers that a fused block was made from."""
    return type(block).__mro__[2]


def _own(block: Any, name: str) -> Any:
    """A function of the file that holds the block's class."""
    return getattr(sys.modules[plain_class(block).__module__], name)


def _interface(block: Any) -> Any:
    """The attention kernel that the model was built with."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    eager = _own(block, "eager_attention_forward")
    return ALL_ATTENTION_FUNCTIONS.get_interface(block.config._attn_implementation, eager)


def _documents(block: Any, query: Tensor, mask: Any) -> tuple[Document, ...] | None:
    """The documents to attend in one by one; None where the model's own kernel is the better way.

    Told once a mask, which all layers of a pass share.
    """
    if (
        query.device.type != "cpu"
        or not isinstance(mask, torch.Tensor)
        or block.config._attn_implementation != "sdpa"
        or (block.training and block.attention_dropout)
    ):
        return None
    known: Any = mask
    if not hasattr(known, "qtune_documents"):
        known.qtune_documents = document_attention.documents_of(mask)
    return known.qtune_documents  # type: ignore[no-any-return]


def _windowed(block: Any) -> dict[str, Any]:
    return {"sliding_window": block.sliding_window}


def _windowed_by_config(block: Any) -> dict[str, Any]:
    return {"sliding_window": getattr(block.config, "sliding_window", None)}


_EXTRAS: dict[str, Any] = {
    "LlamaAttention": lambda _: {},
    "GemmaAttention": lambda _: {},
    "MistralAttention": _windowed_by_config,
    "Phi3Attention": _windowed_by_config,
    "Qwen2Attention": _windowed,
    "Qwen3Attention": _windowed,
    "Gemma2Attention": lambda block: {
        **_windowed(block),
        "softcap": block.attn_logit_softcapping,
    },
}
"""What each family's attention hands its kernel beside the rest."""

MIXINS: dict[str, type] = {
    **dict.fromkeys(_EXTRAS, FusedAttention),
    **{
        f"{family}MLP": FusedMlp
        for family in ("Llama", "Mistral", "Qwen2", "Qwen3", "Phi3", "Gemma", "Gemma2")
    },
    **{f"{family}RMSNorm": FusedNorm for family in ("Llama", "Mistral", "Qwen2", "Qwen3", "Phi3")},
}
"""Which mixin suits a class of transformers, by its name."""
