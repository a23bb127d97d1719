"""Models of images that the plan knows: ViT and DeiT, as transformers names and shapes them.

Pre-norm layers with biases; an image is one row of tokens, a patch each, with a class token and
DeiT's token of distillation before them. Compared with transformers in the tests.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from qtune.errors import UsageError
from qtune.plan.encoders import LayerSizes, weight_and_bias
from qtune.plan.shape import LinearShape, ModelShape, TensorShape

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from qtune.plan.fields import ConfigFields
    from qtune.recipe.sections import Recipe

FAMILIES = {"vit": ("cls_token",), "deit": ("cls_token", "distillation_token")}
"""The tokens in front of the patches."""
_SIZE, _PATCH, _CHANNELS = 224, 16, 3  # transformers' own defaults
_IDLE = ("max_length", "overlong")


def sees_images(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is that of a model of images alone."""
    several = "text_config" in config or "vision_config" in config
    return not several and ("image_size" in config or "num_channels" in config)


def build(family: str, fields: ConfigFields) -> ModelShape:
    """The shape of a model of images without a head; `ModelError` for an impossible value."""
    sizes = LayerSizes.of(fields)
    hidden, layers = sizes.hidden, sizes.layers
    tall, wide = _sides(fields, "image_size", _SIZE)
    patch = _sides(fields, "patch_size", _PATCH)
    tokens = (tall // patch[0]) * (wide // patch[1]) + len(FAMILIES[family])
    channels = fields.size("num_channels", default=_CHANNELS)
    bias = fields.flag("qkv_bias", default=True)
    linears = _linears(f"{family}.layers", layers, hidden, sizes.width, bias=bias)
    return replace(
        sizes.shape(family, tuple(linears)),
        other=(
            *(TensorShape(f"{family}.embeddings.{t}", (1, 1, hidden)) for t in FAMILIES[family]),
            TensorShape(f"{family}.embeddings.position_embeddings", (1, tokens, hidden)),
            *weight_and_bias(
                f"{family}.embeddings.patch_embeddings.projection", (hidden, channels, *patch)
            ),
            *(
                tensor
                for layer in range(layers)
                for norm in ("layernorm_before", "layernorm_after")
                for tensor in weight_and_bias(f"{family}.layers.{layer}.{norm}", (hidden,))
            ),
            *weight_and_bias(f"{family}.layernorm", (hidden,)),
        ),
        image_tokens=tokens,
    )


def with_classes(shape: ModelShape, classes: int) -> ModelShape:
    """The shape with the head of a classification."""
    head = LinearShape("classifier", shape.hidden_size, classes, bias=True, quantizable=False)
    return replace(shape, head=head, class_heads=("classifier",), classes=classes)


def refuse_lengths(recipe: Recipe, shape: ModelShape) -> None:
    """`UsageError` for a limit on tokens where every image has as many."""
    if not shape.image_tokens:
        return
    for key in _IDLE:
        if getattr(recipe.data, key) != type(recipe.data).model_fields[key].default:
            raise UsageError(
                f"has no effect on images: each is {shape.image_tokens} tokens of {shape.family}",
                place=f"data.{key}",
                hint="remove it",
            )


def _sides(fields: ConfigFields, key: str, default: int) -> tuple[int, int]:
    """Height and width, of which a config says one or both."""
    value = fields.present(key)
    if isinstance(value, list | tuple) and len(value) == 2:
        tall, wide = value
        if all(isinstance(side, int) and side > 0 for side in value):
            return tall, wide
    one = fields.size(key, default=default)
    return one, one


def _linears(
    base: str, layers: int, hidden: int, width: int, *, bias: bool
) -> Iterator[LinearShape]:
    for layer in range(layers):
        for name in ("q_proj", "k_proj", "v_proj"):
            yield LinearShape(f"{base}.{layer}.attention.{name}", hidden, hidden, bias=bias)
        yield LinearShape(f"{base}.{layer}.attention.o_proj", hidden, hidden, bias=True)
        yield LinearShape(f"{base}.{layer}.mlp.fc1", hidden, width, bias=True)
        yield LinearShape(f"{base}.{layer}.mlp.fc2", width, hidden, bias=True)
