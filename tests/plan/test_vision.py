"""Models of images, counted as transformers builds them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForImageClassification

from qtune.errors import ModelError, UsageError
from qtune.models.heads import widen_heads
from qtune.ops.linears import linear_modules
from qtune.plan import make, refuse_lengths, schedule, sees_images, shape_of
from qtune.plan.configuration import for_task
from qtune.plan.shape import ModelShape
from qtune.recipe.inputs import ModelSection
from tests.plan.classifiers import (
    SECTION,
    check_what_is_trained,
    kept_bytes,
    planned_bytes,
    planned_kept_bytes,
    shape_of_classifier,
)
from tests.plan.given import cpu, recipe

SIZES: dict[str, Any] = {
    "hidden_size": 256,
    "intermediate_size": 1024,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "image_size": 80,
    "patch_size": 8,
    "mlp_ratio": 4,
}
KNOWN = ("vit", "deit")
MEASURED = ("dinov2", "beit")
NAMES = {
    "vit": "ViTForImageClassification",
    "deit": "DeiTForImageClassification",
    "dinov2": "Dinov2ForImageClassification",
    "beit": "BeitForImageClassification",
}
TOKENS = {"vit": 101, "deit": 102, "dinov2": 101, "beit": 101}


def config_of(family: str) -> Any:
    config = AutoConfig.for_model(family, num_labels=3, **SIZES)
    config.architectures = [NAMES[family]]  # AutoModel finds two classes for DeiT
    return config


def shape_for(family: str) -> ModelShape:
    return shape_of_classifier(config_of(family), known=family in KNOWN)


@pytest.mark.parametrize("family", [*KNOWN, *MEASURED])
def test_every_parameter_and_every_token_is_counted(family: str) -> None:
    with torch.device("meta"):
        network = AutoModelForImageClassification.from_config(config_of(family))
        widen_heads(network)
    shape = shape_for(family)
    assert sees_images(config_of(family).to_dict())
    assert {linear.name for linear in shape.linears} == set(linear_modules(network))
    pixels = torch.empty(1, 3, 80, 80, device="meta")
    embedded = network.base_model.embeddings(pixels)
    seen = embedded[0] if isinstance(embedded, tuple) else embedded
    assert shape.image_tokens == TOKENS[family] == seen.shape[1]
    check_what_is_trained(network, shape)


@pytest.mark.parametrize("family", [*KNOWN, *MEASURED])
def test_bytes_of_the_base_with_the_head_in_fp32(family: str) -> None:
    with torch.device("meta"):
        network = AutoModelForImageClassification.from_config(
            config_of(family), dtype=torch.bfloat16
        )
        widen_heads(network)
    assert planned_bytes(shape_for(family)) == sum(p.nbytes for p in network.parameters())


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("family", KNOWN)
def test_what_a_pass_keeps_is_predicted_within_a_twentieth(family: str, dropout: float) -> None:
    asked = recipe(
        model=SECTION.model_dump(), method={"name": "lora", "rank": 8, "dropout": dropout}
    )
    torch.manual_seed(0)
    network = AutoModelForImageClassification.from_config(config_of(family), dtype=torch.bfloat16)
    pixels = torch.rand(4, 3, 80, 80, dtype=torch.bfloat16)
    kept, tokens = kept_bytes(network, asked, pixel_values=pixels), TOKENS[family]
    planned = planned_kept_bytes(asked, shape_for(family), tokens)
    assert kept == pytest.approx(4 * tokens * planned, rel=0.05)


def test_an_image_has_its_own_number_of_tokens_and_no_limit() -> None:
    shape = shape_for("vit")
    asked = recipe(model=SECTION.model_dump(), max_length=2048)
    refuse_lengths(asked, shape)
    planned = make(asked, cpu(8), shape, rows=32)
    assert planned.steps is not None
    assert planned.steps.tokens_upper == 32 * 101
    assert planned.steps == schedule(asked, 32, image_tokens=101)
    short = recipe(model=SECTION.model_dump(), max_length=128)
    with pytest.raises(UsageError, match="no effect on images: each is 101 tokens of vit"):
        refuse_lengths(short, shape)
    refuse_lengths(short, for_task(shape_of(_bert()), SECTION))


def test_a_model_of_images_has_no_next_token() -> None:
    with pytest.raises(ModelError, match="vit sees images: it has no next token"):
        for_task(shape_of(config_of("vit").to_dict()), ModelSection(name_or_path="x"))


def test_vit_base_has_the_published_number_of_parameters() -> None:
    config = AutoConfig.for_model("vit").to_dict()
    labels = tuple(map(str, range(1000)))
    shape = for_task(shape_of(config), SECTION.model_copy(update={"labels": labels}))
    assert shape.total_parameters == 86_567_656  # google/vit-base-patch16-224
    assert shape.image_tokens == 197


def _bert() -> dict[str, Any]:
    return AutoConfig.for_model("bert", **SIZES, vocab_size=320).to_dict()
