"""adapter_config.json of other versions and variants of PEFT."""

from __future__ import annotations

from typing import Any

import pytest

from qtune.errors import ExitCode, ModelError
from qtune.methods.bitfit import Bitfit
from qtune.methods.lora import Lora
from qtune.methods.prompt import Prompt
from qtune.recipe.methods import LoraConfig

PLAIN: dict[str, Any] = {
    "peft_type": "LORA",
    "r": 8,
    "lora_alpha": 16,
    "lora_dropout": 0.1,
    "target_modules": ["v_proj", "q_proj"],
}


def test_an_old_config_with_few_keys() -> None:
    assert Lora.config_from_peft(PLAIN) == LoraConfig(
        rank=8, alpha=16.0, dropout=0.1, target_modules=("q_proj", "v_proj")
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"fan_in_fan_out": None, "modules_to_save": None, "bias": "none"}, {}),
        ({"target_modules": "c_attn"}, {"target_modules": ("c_attn",)}),
        ({"target_modules": r".*\.(q|v)_proj"}, {"target_modules": r".*\.(q|v)_proj"}),
        ({"exclude_modules": "lm_head"}, {"exclude_modules": ("lm_head",)}),
        ({"layers_to_transform": 3}, {"layers_to_transform": (3,)}),
        ({"use_qalora": False, "qalora_group_size": 16, "loftq_config": {}}, {}),
        ({"megatron_core": "megatron.core", "megatron_config": None}, {}),
        ({"init_lora_weights": "gaussian"}, {}),
        ({"from_the_future": None, "also": False, "and": {}}, {}),
    ],
)
def test_what_is_off_is_tolerated(changes: dict[str, Any], expected: dict[str, Any]) -> None:
    before = Lora.config_from_peft(PLAIN)
    assert Lora.config_from_peft({**PLAIN, **changes}) == before.model_copy(update=expected)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"use_qalora": True}, "pooled inputs"),
        ({"alora_invocation_tokens": [1, 2]}, "certain tokens"),
        ({"lora_bias": True}, "bias on B"),
        ({"megatron_config": {"a": 1}}, "Megatron"),
        ({"layer_replication": [[0, 4], [2, 5]]}, "repeated layers"),
        ({"trainable_token_indices": [1]}, "rows of the embedding"),
        ({"target_parameters": ["experts.up"]}, "bare parameters"),
        ({"from_the_future": True}, "not known to this version"),
        ({"bias": "all"}, "trained biases"),
        ({"init_lora_weights": "pissa_niter_4"}, "base weights too"),
        ({"init_lora_weights": "loftq"}, "base weights too"),
        ({"exclude_modules": r".*\.q_proj"}, "is a pattern"),
        ({"r": None}, "r or lora_alpha"),
        ({"r": 0}, "rank"),
        ({"r": "8"}, "rank"),
        ({"lora_alpha": -1}, "alpha"),
        ({"rank_pattern": {"q_proj": "x"}}, "rank_pattern"),
        ({"target_modules": None}, "target_modules is empty"),
    ],
)
def test_what_changes_the_function_is_refused(changes: dict[str, Any], word: str) -> None:
    with pytest.raises(ModelError, match=word) as refused:
        Lora.config_from_peft({**PLAIN, **changes})
    assert refused.value.code is ExitCode.MODEL
    assert "adapter_config.json" in str(refused.value)


def test_the_other_kinds_refuse_trained_copies() -> None:
    with pytest.raises(ModelError, match="trained copies"):
        Bitfit.config_from_peft({"target_modules": ["q_proj"], "modules_to_save": ["norm"]})
    with pytest.raises(ModelError, match="trained copies"):
        Prompt.config_from_peft({"num_virtual_tokens": 4, "modules_to_save": ["norm"]})
    with pytest.raises(ModelError, match="encoder"):
        Prompt.config_from_peft({"num_virtual_tokens": 4, "num_transformer_submodules": 2})
