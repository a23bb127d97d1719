"""The shape of a family that has no formula: equal to the formulas where both can tell."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from qtune.models import measure
from qtune.plan import shape_of

SIZES: dict[str, Any] = {
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": 96,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
NEOX = {key: value for key, value in SIZES.items() if key != "num_key_value_heads"}
GPT2 = {"n_embd": 48, "n_layer": 3, "n_head": 6, "vocab_size": 96, "n_inner": 80}


@pytest.mark.parametrize(
    ("family", "sizes"),
    [
        *((family, SIZES) for family in ("llama", "qwen2", "qwen3", "gemma2", "phi3")),
        ("gpt_neox", NEOX),
        ("gpt2", GPT2),
    ],
)
def test_measured_is_what_the_formulas_say(family: str, sizes: dict[str, Any]) -> None:
    content = {"model_type": family, **sizes}
    measured = measure(content, place="config.json")
    formula = shape_of(content)
    assert measured is not None
    assert measured.linears == formula.linears
    assert measured.total_parameters == formula.total_parameters
    for key in ("layers", "heads", "key_value_heads", "head_dim", "tied", "vocab_size"):
        assert getattr(measured, key) == getattr(formula, key), key
    for key in ("gated", "root_norms", "norms_per_layer", "head_norms", "sdpa", "hidden_size"):
        assert getattr(measured, key) == getattr(formula, key), key


@pytest.mark.parametrize(
    "family", ["olmo2", "cohere", "granite", "phi", "falcon", "stablelm", "mixtral", "qwen2_moe"]
)
def test_a_family_without_formula_is_counted_whole(family: str) -> None:
    own = {key: value for key, value in SIZES.items() if family != "falcon" or key != "head_dim"}
    content = {"model_type": family, **own}
    measured = measure(content, place="config.json")
    assert measured is not None
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**content))
    assert measured.total_parameters == sum(each.numel() for each in model.parameters())
    assert len(measured.linears) >= 4 * 3


def test_what_transformers_does_not_have_is_not_measured() -> None:
    assert measure({"model_type": "gptneox", "hidden_size": 8}, place="config.json") is None
    assert measure({"model_type": "mamba", "hidden_size": 8}, place="config.json") is None
