"""The shape of a family that the plan has no formula for: off transformers' class on the meta
device, which holds no weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from qtune.errors import ModelError
from qtune.models.skeleton import network_class_of
from qtune.ops.linears import class_heads, features, is_linear, linear_modules, output_head
from qtune.plan import LinearShape, ModelShape, TensorShape, sees_images, stored_quantization
from qtune.plan.positions import reached
from qtune.plan.targets import layer_index
from qtune.recipe.inputs import ModelSection

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


def measure(
    content: Mapping[str, Any], *, place: str, section: ModelSection | None = None
) -> ModelShape | None:
    """The shape of a config.json's model for a recipe's task (the next token without one), None for
    a type that transformers does not have or that attends with no heads."""
    config = _config(content, place)
    if config is None or not getattr(config, "num_attention_heads", None):
        return None
    asked = section or ModelSection(name_or_path=place)
    network_class = network_class_of(config, asked, place=place)
    try:
        with torch.device("meta"):
            model = network_class._from_config(config)
    except Exception as error:  # each family fails on a faulty value in its own way
        raise ModelError(f"no model can be built from it: {error}", place=place) from error
    linears = tuple(_linears(model))
    one = [module for name, module in model.named_modules() if layer_index(name) == 0]
    behind = tuple(class_heads(model))
    norms = [module for module in one if "Norm" in type(module).__name__]
    hidden, heads = int(config.hidden_size), int(config.num_attention_heads)
    gated = any(linear.name.endswith(("gate_proj", "gate_up_proj")) for linear in linears)
    return ModelShape(
        family=str(config.model_type),
        hidden_size=hidden,
        intermediate_size=_width(config, linears),
        layers=int(config.num_hidden_layers),
        heads=heads,
        key_value_heads=int(getattr(config, "num_key_value_heads", None) or heads),
        head_dim=int(getattr(config, "head_dim", None) or hidden // heads),
        vocab_size=int(getattr(config, "vocab_size", 0)),
        max_positions=reached(
            getattr(config, "max_position_embeddings", None),
            getattr(config, "rope_parameters", None),
        ),
        tied=_is_tied(model),
        gated=gated,
        mlp_tensors=3 if gated else 4,
        root_norms=any("RMS" in type(module).__name__ for module in norms),
        norms_per_layer=max(1, sum(_elements(module) == hidden for module in norms)),
        head_norms=any(0 < _elements(module) < hidden for module in norms),
        sdpa=bool(getattr(network_class, "_supports_sdpa", False)),
        classes=len(asked.labels) if behind else 0,
        class_heads=behind,
        encoder=bool(behind) and "score" not in behind,
        image_tokens=_image_tokens(model, config),
        linears=linears,
        other=tuple(_other(model, {linear.name for linear in linears})),
        head=_head(model),
        stored=stored_quantization(content, place=place),
    )


def _config(content: Mapping[str, Any], place: str) -> Any:
    from transformers import CONFIG_MAPPING

    kind = content.get("model_type")
    if kind not in CONFIG_MAPPING:
        return None
    try:
        return CONFIG_MAPPING[kind].from_dict(dict(content))
    except Exception as error:  # each config class raises what it likes
        said = " ".join(str(error).split())[:200]
        raise ModelError(f"transformers cannot read it: {said}", place=place) from error


def _image_tokens(model: Any, config: Any) -> int:
    """Tokens of an image of the config's size, told by the embeddings; 0 of a model of text."""
    if not sees_images(config.to_dict()):
        return 0
    size = config.image_size
    sides = tuple(size) if isinstance(size, list | tuple) else (size, size)
    embeddings = model.base_model.embeddings
    pixels = torch.empty(1, config.num_channels, *sides, device="meta")
    found = embeddings(pixels)
    first = found[0] if isinstance(found, tuple) else found
    return int(first.shape[1])


def _linears(model: Any) -> Iterator[LinearShape]:
    for name, module in linear_modules(model).items():
        inputs, outputs = features(module)
        bias = getattr(module, "bias", None) is not None
        quantizable = isinstance(module, nn.Linear)
        yield LinearShape(name, inputs, outputs, bias, quantizable)


def _head_module(model: Any) -> nn.Module | None:
    """What gives the scores: the output head, or the last linear of a classifier's heads."""
    heads = class_heads(model)
    if not heads:
        return output_head(model)
    last: nn.Module = model.get_submodule(heads[-1])
    return [module for module in last.modules() if is_linear(module)][-1]


def _head(model: Any) -> LinearShape:
    head = _head_module(model)
    name = next((name for name, module in model.named_modules() if module is head), "lm_head")
    inputs, outputs = features(head) if head is not None else (1, 1)
    return LinearShape(name, inputs, outputs, getattr(head, "bias", None) is not None, False)


def _other(model: Any, linears: set[str]) -> Iterator[TensorShape]:
    """Every parameter outside of the linears and the head, a shared one once."""
    head = _head_module(model)
    own = {id(parameter) for parameter in head.parameters()} if head is not None else set()
    if _is_tied(model):
        own -= {id(model.get_input_embeddings().weight)}
    for name, parameter in model.named_parameters():
        if name.rpartition(".")[0] not in linears and id(parameter) not in own:
            yield TensorShape(name, tuple(parameter.shape))


def _is_tied(model: Any) -> bool:
    head = output_head(model)
    return head is not None and head.weight is model.get_input_embeddings().weight


def _width(config: Any, linears: tuple[LinearShape, ...]) -> int:
    """The MLP's width; where the config does not tell, the widest linear's."""
    known = getattr(config, "intermediate_size", None) or getattr(config, "ffn_dim", None)
    return int(known or max(max(each.in_features, each.out_features) for each in linears))


def _elements(norm: nn.Module) -> int:
    weight = getattr(norm, "weight", None)
    return 0 if weight is None else weight.numel()
