"""Encoders and the heads of classifications, counted as transformers builds them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from qtune.errors import ModelError, UsageError
from qtune.models.heads import widen_heads
from qtune.ops.linears import class_heads
from qtune.plan import make, shape_of
from qtune.plan.configuration import for_task
from qtune.plan.published import published_config
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
    "vocab_size": 320,
    "max_position_embeddings": 130,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "cls_token_id": 0,
    "sep_token_id": 2,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "classifier_dropout": 0.0,
}
KNOWN = ("bert", "roberta", "xlm-roberta", "llama", "gpt2")
MEASURED = ("modernbert", "distilbert", "electra", "deberta-v2")


def config_of(family: str) -> Any:
    return AutoConfig.for_model(family, num_labels=3, **SIZES)


def shape_for(family: str) -> ModelShape:
    return shape_of_classifier(config_of(family), known=family in KNOWN)


@pytest.mark.parametrize("family", [*KNOWN, *MEASURED])
def test_every_parameter_is_counted(family: str) -> None:
    with torch.device("meta"):
        network = AutoModelForSequenceClassification.from_config(config_of(family))
        widen_heads(network)
    shape = shape_for(family)
    heads = [network.get_submodule(name) for name in class_heads(network)]
    assert shape.head_parameters == sum(p.numel() for head in heads for p in head.parameters())
    check_what_is_trained(network, shape)


@pytest.mark.parametrize("family", ["bert", "roberta", "llama", "modernbert"])
def test_bytes_of_the_base_with_heads_in_fp32(family: str) -> None:
    with torch.device("meta"):
        network = AutoModelForSequenceClassification.from_config(
            config_of(family), dtype=torch.bfloat16
        )
        widen_heads(network)
    assert planned_bytes(shape_for(family)) == sum(p.nbytes for p in network.parameters())


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_what_a_pass_keeps_is_predicted_within_a_twentieth(family: str, dropout: float) -> None:
    asked = recipe(
        model=SECTION.model_dump(),
        method={"name": "lora", "rank": 8, "dropout": dropout},
        max_length=96,
    )
    torch.manual_seed(0)
    network = AutoModelForSequenceClassification.from_config(
        config_of(family), dtype=torch.bfloat16
    )
    ids = torch.randint(3, 300, (4, 96))
    kept = kept_bytes(network, asked, input_ids=ids, attention_mask=torch.ones_like(ids))
    planned = planned_kept_bytes(asked, shape_for(family), 96)
    assert kept == pytest.approx(4 * 96 * planned, rel=0.05)


def test_an_encoder_has_no_next_token_and_no_more_positions() -> None:
    plain = ModelSection(name_or_path="x")
    with pytest.raises(ModelError, match="bert is an encoder: it has no next token"):
        for_task(shape_of(config_of("bert").to_dict()), plain)
    long = recipe(model=SECTION.model_dump(), max_length=129)
    with pytest.raises(UsageError, match="129 tokens, roberta has 128 positions"):
        make(long, cpu(8), shape_for("roberta"))
    assert make(long, cpu(8), shape_for("bert")).fits


def test_labels_must_be_known() -> None:
    unnamed = SECTION.model_copy(update={"labels": ()})
    with pytest.raises(UsageError, match="labels are not known"):
        for_task(shape_of(config_of("bert").to_dict()), unnamed)


def test_bert_base_has_the_published_number_of_parameters() -> None:
    content = published_config("google-bert/bert-base-uncased")
    assert content is not None
    section = SECTION.model_copy(update={"labels": ("negative", "positive")})
    shape = for_task(shape_of(content), section)
    assert shape.total_parameters == 109_482_240 + 2 * 768 + 2  # with its pooler, and the head
