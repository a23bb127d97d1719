"""Shapes of classifiers, and the figures of their networks that a plan must find."""

from __future__ import annotations

from typing import Any

import torch

from qtune import methods
from qtune.models.measuring import measure
from qtune.ops.linears import class_heads
from qtune.plan import shape_of, trainable_parameters
from qtune.plan.activations import activations_of
from qtune.plan.adapters import adapted_linears
from qtune.plan.configuration import for_task
from qtune.plan.shape import ModelShape
from qtune.plan.weights import holding_of, leftover_bytes, weight_bytes
from qtune.recipe import Recipe
from qtune.recipe.inputs import ModelSection
from qtune.recipe.methods import LoraConfig
from tests.plan.counting import Counting
from tests.plan.given import recipe

SECTION = ModelSection(name_or_path="x", task="classification", labels=("a", "b", "c"))


def shape_of_classifier(config: Any, *, known: bool) -> ModelShape:
    """Of a family that the plan knows, or measured."""
    content = config.to_dict()
    if known:
        return for_task(shape_of(content), SECTION)
    shape = measure(content, place="x", section=SECTION)
    assert shape is not None
    return shape


def check_what_is_trained(network: Any, shape: ModelShape) -> None:
    """All parameters are counted, and those that LoRA and the heads train."""
    assert shape.total_parameters == sum(p.numel() for p in network.parameters())
    assert list(shape.class_heads) == class_heads(network)
    network.requires_grad_(False)
    asked = LoraConfig(rank=4)
    whole = asked.model_copy(update={"modules_to_save": tuple(class_heads(network))})
    method = methods.create(whole, seed=0)
    method.attach(network)
    trained = sum(parameter.numel() for parameter in method.parameters().values())
    assert trainable_parameters(asked, shape) == trained


def planned_bytes(shape: ModelShape) -> int:
    """Of a base in 16 bits with its heads in fp32."""
    asked = recipe(quantization={"bits": 16}, model={"name_or_path": "x"})
    holding = holding_of(asked.quantization, shape)
    return sum(weight_bytes(linear, holding) for linear in shape.linears) + leftover_bytes(
        shape, holding
    )


def kept_bytes(network: Any, asked: Recipe, **inputs: torch.Tensor) -> int:
    """What a training pass of a base with its adapters keeps for the gradients."""
    network.requires_grad_(False)
    method = methods.create(asked.method, seed=0)
    method.attach(network)
    network.train()
    with Counting() as counted:
        output = network.base_model(**inputs)
        kept = counted.alive
    assert output is not None  # it holds what is kept
    return kept


def planned_kept_bytes(asked: Recipe, shape: ModelShape, length: int) -> float:
    """The same of one token, as planned."""
    adapted = adapted_linears(asked.method, shape)
    each = activations_of(asked, shape, adapted, compute_bytes=2, length=length, device="cpu")
    return each.kept
