"""Trained parameters, counted again by hand and on real models."""

from __future__ import annotations

from typing import Any

import pytest

from qtune import methods
from qtune.errors import UsageError
from qtune.plan import shape_of, trainable_parameters
from qtune.plan.adapters import trainable_tensors
from qtune.plan.kept import kept_by_layer, products_of
from qtune.recipe.methods import (
    BitfitConfig,
    LoraConfig,
    MethodConfig,
    PromptConfig,
    QuantumConfig,
    RosaConfig,
    SelectiveConfig,
)
from tests.plan.given import LLAMA_8B, LLAMA_65B, LLAMA_70B, QWEN_32B, TINY
from tests.tiny import tiny_llama

CASES: dict[str, MethodConfig] = {
    "all": LoraConfig(rank=3),
    "list": LoraConfig(rank=4, target_modules=("q_proj", "down_proj"), layers_to_transform=(1,)),
    "dora": LoraConfig(rank=2, use_dora=True, exclude_modules=("gate_proj",)),
    "patterns": LoraConfig(rank=8, rank_pattern={"v_proj": 2, r"layers\.0\.mlp\..*": 5}),
    "saved": LoraConfig(rank=2, modules_to_save=("lm_head", "embed_tokens", "input_layernorm")),
    "bitfit": BitfitConfig(target_modules=r".*self_attn\.[qv]_proj"),
    "prompt": PromptConfig(num_virtual_tokens=7),
    "quantum": QuantumConfig(rank=3, circuit_layers=2, target_modules=("k_proj",)),
    "rosa": RosaConfig(rank=3, density=0.01, target_modules=("k_proj",)),
}
# by hand for TINY: h 64, f 128, k 32, V 320, 2 layers
BY_HAND = {
    "all": 3 * 2 * (2 * (64 + 64) + 2 * (64 + 32) + 3 * (64 + 128)),
    "list": 4 * ((64 + 64) + (128 + 64)),
    "dora": 2 * (2 * (2 * (64 + 64) + 2 * (64 + 32) + 2 * (64 + 128)) + 64 * 2 + 32 * 2 + 128 + 64),
    "patterns": 2 * (8 * (2 * 128 + 96) + 2 * 96) + 5 * 3 * 192 + 8 * 3 * 192,
    "saved": 2 * 2 * (2 * 128 + 2 * 96 + 3 * 192) + 2 * 320 * 64 + 128,
    "bitfit": 2 * (64 + 32),
    "prompt": 7 * 64,
    "quantum": 2 * (3 + 5 * (5 + 6) - 2 * 4),
    "rosa": 2 * (3 * (64 + 32) + 20),
}


@pytest.mark.parametrize("case", CASES)
def test_counts_equal_the_arithmetic_and_the_attached_method(case: str) -> None:
    config = CASES[case]
    assert trainable_parameters(config, shape_of(TINY)) == BY_HAND[case]
    model = tiny_llama()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    method = methods.create(config, seed=0)
    method.attach(model, tokenizer=None)
    trained = method.parameters().values()
    assert sum(parameter.numel() for parameter in trained) == BY_HAND[case]
    tensors = trainable_tensors(config, shape_of(TINY))
    assert sorted(tensor.elements for tensor in tensors) == sorted(p.numel() for p in trained)
    assert sum(tensor.size for tensor in tensors) == sum(p.nbytes for p in trained)


@pytest.mark.parametrize(
    ("config", "rank", "millions"),
    [
        (LLAMA_65B, 16, 200),
        (LLAMA_65B, 64, 800),
        (LLAMA_70B, 16, 207),
        (LLAMA_70B, 64, 828),
        (QWEN_32B, 16, 134),
        (QWEN_32B, 64, 537),
        (LLAMA_8B, 16, 42),
        (LLAMA_8B, 64, 168),
    ],
)
def test_published_shapes_give_the_known_counts(
    config: dict[str, Any], rank: int, millions: int
) -> None:
    found = trainable_parameters(LoraConfig(rank=rank), shape_of(config))
    assert round(found / 1e6) == millions


def test_a_tied_head_counts_once_it_is_trained() -> None:
    shape = shape_of({**TINY, "tie_word_embeddings": True})
    config = LoraConfig(rank=2, modules_to_save=("lm_head",))
    plain = trainable_parameters(LoraConfig(rank=2), shape)
    assert trainable_parameters(config, shape) - plain == 320 * 64


def test_a_module_trained_whole_carries_no_adapter() -> None:
    shape = shape_of(TINY)
    config = LoraConfig(rank=2, modules_to_save=("mlp",))
    attention = 2 * 2 * (2 * 128 + 2 * 96)
    assert trainable_parameters(config, shape) == attention + 2 * 3 * 64 * 128


def test_a_module_to_save_that_is_not_there_is_an_error() -> None:
    with pytest.raises(UsageError, match="no module is named 'embed_token'") as caught:
        trainable_parameters(LoraConfig(modules_to_save=("embed_token",)), shape_of(TINY))
    assert "embed_tokens" in caught.value.faults[0].hint


@pytest.mark.parametrize("key", ["rank_pattern", "alpha_pattern"])
def test_a_pattern_that_fits_nothing_is_an_error(key: str) -> None:
    with pytest.raises(UsageError, match=f"method.{key}: 'q_porj' fits no chosen") as caught:
        trainable_parameters(LoraConfig(**{key: {"q_porj": 2}}), shape_of(TINY))
    assert "q_proj" in caught.value.faults[0].hint


def test_bf16_adapters_take_half() -> None:
    shape = shape_of(TINY)
    tensors = trainable_tensors(LoraConfig(rank=3, dtype="bfloat16"), shape)
    assert sum(tensor.size for tensor in tensors) == 2 * BY_HAND["all"]


def test_a_trained_matrix_keeps_its_input_in_fp32() -> None:
    method = SelectiveConfig(parts=("mlp",), layers_to_transform="last:1")
    shape = shape_of(LLAMA_8B)
    kept = kept_by_layer(method, shape, compute_bytes=2, mask_bytes=1, length=512)
    assert kept == {31: 4 * (2 * 4096 + 14336)}
    assert products_of(method, shape) == 2 * (4096 + 2 * 14336)
