"""The encoders the plan knows, and the heads that a classification puts on any model.

BERT and RoBERTa: attention without a mask, LayerNorms behind each part, biases throughout, learned
positions (RoBERTa's begin behind its padding id). Compared with transformers in the tests.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from qtune.errors import UsageError
from qtune.plan.shape import LinearShape, ModelShape, TensorShape

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qtune.plan.fields import ConfigFields

ENCODERS = ("bert", "roberta", "xlm-roberta")
_PREFIX = {"xlm-roberta": "roberta"}
_POSITIONS, _TYPES, _VOCABULARY = 512, 2, 30522  # transformers' own defaults


@dataclass(frozen=True)
class LayerSizes:
    """What encoders of texts and of images have in common."""

    hidden: int
    layers: int
    width: int
    heads: int
    activation: str

    @classmethod
    def of(cls, fields: ConfigFields) -> LayerSizes:
        """Those of a config.json; `ModelError` for a missing or impossible one."""
        hidden, heads = fields.size("hidden_size"), fields.size("num_attention_heads")
        if hidden % heads:
            raise fields.fault(
                "num_attention_heads", f"is {heads}, which does not divide the hidden size {hidden}"
            )
        layers, width = fields.size("num_hidden_layers"), fields.size("intermediate_size")
        return cls(hidden, layers, width, heads, fields.present("hidden_act") or "gelu")

    def shape(self, family: str, linears: tuple[LinearShape, ...]) -> ModelShape:
        """Layers of attention without a mask and an MLP, with biases; no embeddings, no head."""
        return ModelShape(
            family=family,
            hidden_size=self.hidden,
            intermediate_size=self.width,
            layers=self.layers,
            heads=self.heads,
            key_value_heads=self.heads,
            head_dim=self.hidden // self.heads,
            vocab_size=0,
            max_positions=None,
            tied=False,
            gated=False,
            mlp_tensors=4 if self.activation in ("gelu_new", "gelu_fast") else 1,
            root_norms=False,
            norms_per_layer=2,
            head_norms=False,
            linears=linears,
            other=(),
            head=LinearShape("classifier", self.hidden, 0, quantizable=False),
            encoder=True,
        )


def build(family: str, fields: ConfigFields) -> ModelShape:
    """The shape of an encoder without a head; `ModelError` for a missing or impossible value."""
    sizes = LayerSizes.of(fields)
    hidden, layers = sizes.hidden, sizes.layers
    positions = fields.size("max_position_embeddings", default=_POSITIONS)
    vocabulary = fields.size("vocab_size", default=_VOCABULARY)
    prefix = _PREFIX.get(family, family)
    base = f"{prefix}.encoder.layer"
    embedded = {
        "word_embeddings": vocabulary,
        "position_embeddings": positions,
        "token_type_embeddings": fields.size("type_vocab_size", default=_TYPES),
    }
    shape = sizes.shape(family, tuple(_linears(base, layers, hidden, sizes.width)))
    return replace(
        shape,
        vocab_size=vocabulary,
        max_positions=positions - (0 if family == "bert" else _padding(fields) + 1),
        other=(
            *(
                TensorShape(f"{prefix}.embeddings.{name}.weight", (rows, hidden))
                for name, rows in embedded.items()
            ),
            *weight_and_bias(f"{prefix}.embeddings.LayerNorm", (hidden,)),
            *(
                tensor
                for layer in range(layers)
                for part in ("attention.output", "output")
                for tensor in weight_and_bias(f"{base}.{layer}.{part}.LayerNorm", (hidden,))
            ),
        ),
    )


def with_classes(shape: ModelShape, classes: int) -> ModelShape:
    """The shape with the heads of a classification, which transformers names by the family."""
    if not classes:
        raise UsageError(
            "a classification's labels are not known",
            place="model.labels",
            hint="list them, or name labels in the source",
        )
    hidden = shape.hidden_size
    if not shape.encoder:
        head = LinearShape("score", hidden, classes, quantizable=False)
        return replace(shape, head=head, class_heads=("score",), tied=False, classes=classes)
    dense = (hidden, hidden)
    heads: tuple[str, ...]
    if shape.family == "bert":
        head = LinearShape("classifier", hidden, classes, bias=True, quantizable=False)
        own, heads = weight_and_bias("bert.pooler.dense", dense), ("bert.pooler", "classifier")
    else:
        head = LinearShape("classifier.out_proj", hidden, classes, bias=True, quantizable=False)
        own, heads = weight_and_bias("classifier.dense", dense), ("classifier",)
    other = (*shape.other, *own)
    return replace(shape, head=head, class_heads=heads, other=other, classes=classes)


def _linears(base: str, layers: int, hidden: int, width: int) -> Iterator[LinearShape]:
    for layer in range(layers):
        for name in ("query", "key", "value"):
            yield LinearShape(f"{base}.{layer}.attention.self.{name}", hidden, hidden, bias=True)
        yield LinearShape(f"{base}.{layer}.attention.output.dense", hidden, hidden, bias=True)
        yield LinearShape(f"{base}.{layer}.intermediate.dense", hidden, width, bias=True)
        yield LinearShape(f"{base}.{layer}.output.dense", width, hidden, bias=True)


def weight_and_bias(module: str, size: tuple[int, ...]) -> Iterator[TensorShape]:
    """Both tensors of a module whose weight has this size."""
    yield TensorShape(f"{module}.weight", size)
    yield TensorShape(f"{module}.bias", size[:1])


def _padding(fields: ConfigFields) -> int:
    """RoBERTa's padding id; its default is 1."""
    padding = fields.present("pad_token_id")
    return 1 if padding is None else int(padding)
