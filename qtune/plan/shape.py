"""What a model is made of, read off its config.json: names and sizes, no weights, no torch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Literal


@dataclass(frozen=True)
class LinearShape:
    """One linear module by its name in transformers; its weight is [out_features, in_features]."""

    name: str
    in_features: int
    out_features: int
    bias: bool = False
    quantizable: bool = True

    @property
    def weights(self) -> int:
        """Parameters of the matrix alone."""
        return self.in_features * self.out_features

    @property
    def biases(self) -> int:
        """Parameters of the bias, 0 without one."""
        return self.out_features if self.bias else 0


@dataclass(frozen=True)
class TensorShape:
    """A parameter that belongs to no linear module: an embedding or a norm."""

    name: str
    size: tuple[int, ...]

    @property
    def parameters(self) -> int:
        """Number of elements."""
        return prod(self.size)

    @property
    def module(self) -> str:
        """Name of the module that holds it."""
        return self.name.rpartition(".")[0]


@dataclass(frozen=True)
class StoredQuantization:
    """How a checkpoint that is already quantised holds its linear modules."""

    bits: Literal[4, 8]
    quant_type: Literal["nf4", "fp4"] = "nf4"
    double_quant: bool = False
    compute_dtype: Literal["bfloat16", "float32"] = "bfloat16"


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """A language model, or a classifier of texts or images: its linear modules without the head,
    and the rest."""

    family: str
    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    key_value_heads: int
    head_dim: int
    vocab_size: int
    max_positions: int | None
    tied: bool
    gated: bool
    mlp_tensors: int
    """Tensors of the MLP's width that a backward pass needs, beside the adapters' inputs."""
    root_norms: bool
    """RMSNorm (computed in fp32) instead of LayerNorm."""
    norms_per_layer: int
    head_norms: bool
    """Norms on queries and keys."""
    fused_queries: bool = False
    """Values are kept as a part of the fused product that holds queries and keys too."""
    linears: tuple[LinearShape, ...]
    other: tuple[TensorShape, ...]
    head: LinearShape
    sdpa: bool = True
    """transformers runs the family with torch's scaled_dot_product_attention."""
    stored: StoredQuantization | None = None
    classes: int = 0
    """Labels of a classifier, 0 of a language model."""
    class_heads: tuple[str, ...] = ()
    """A classifier's modules behind its base: held in fp32, and trained whole."""
    encoder: bool = False
    """Every token sees every other, and there are no more positions than max_positions."""
    image_tokens: int = 0
    """Tokens of each image that the model sees, 0 of a model of text."""

    bridged: tuple[TensorShape, ...] = ()
    """What a tuner of PEFT trains in it, as measured; no part of the model."""
    teacher: ModelShape | None = None
    """Another model that teaches this one; no part of it."""

    @property
    def scores(self) -> int:
        """Numbers that the head gives a position."""
        return self.classes or self.vocab_size

    @cached_property
    def head_parameters(self) -> int:
        """Parameters of a classifier's heads."""
        owned = [(self.head.name, self.head.weights + self.head.biases)]
        owned += [(tensor.module, tensor.parameters) for tensor in self.other]
        within = tuple(f"{head}." for head in self.class_heads)
        return sum(size for name, size in owned if f"{name}.".startswith(within) and within)

    @cached_property
    def linear_parameters(self) -> int:
        """N: weights of the linear modules without head and biases."""
        return sum(linear.weights for linear in self.linears)

    @property
    def active_parameters(self) -> int:
        """Weights of the linear modules that one token meets."""
        return self.linear_parameters

    @cached_property
    def other_parameters(self) -> int:
        """Embeddings, norms, biases and, where it is its own tensor, the head."""
        return self.total_parameters - self.linear_parameters

    @cached_property
    def total_parameters(self) -> int:
        """Every distinct parameter of the base once."""
        linears = sum(linear.weights + linear.biases for linear in self.linears)
        other = sum(tensor.parameters for tensor in self.other)
        head = 0 if self.tied else self.head.weights + self.head.biases
        return linears + other + head
