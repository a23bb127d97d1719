"""Every family against transformers' own modules, built at tiny size on the meta device."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from qtune.plan import ModelShape, shape_of
from qtune.plan.families import BUILDERS

SIZES = {
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "vocab_size": 96,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
SHARED = {**SIZES, "num_key_value_heads": 2}
GPT2 = {"n_embd": 48, "n_layer": 3, "n_head": 6, "n_positions": 40, "vocab_size": 96}
GPT2 |= {"bos_token_id": 1, "eos_token_id": 2}
CASES: list[tuple[str, dict[str, Any]]] = [
    ("llama", SHARED),
    ("llama", SIZES),
    ("llama", {**SHARED, "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
    ("llama", {**SHARED, "head_dim": 16}),
    ("mistral", {**SHARED, "head_dim": 16}),
    ("mistral", SHARED),
    ("qwen2", SHARED),
    ("qwen2", {**SHARED, "tie_word_embeddings": True, "head_dim": 16}),
    ("qwen3", SHARED),
    ("qwen3", {**SHARED, "head_dim": 16, "attention_bias": True}),
    ("gemma", SHARED),
    ("gemma", {**SHARED, "head_dim": 16, "attention_bias": True, "tie_word_embeddings": False}),
    ("gemma2", SHARED),
    ("gemma3_text", {**SHARED, "head_dim": 16}),
    ("gemma3_text", SHARED),
    ("phi3", SHARED),
    ("phi3", {**SIZES, "tie_word_embeddings": True}),
    ("gpt2", GPT2),
    ("gpt2", {**GPT2, "n_inner": 64, "tie_word_embeddings": False}),
    ("gpt_neox", SIZES),
    ("gpt_neox", {**SIZES, "attention_bias": False, "tie_word_embeddings": True}),
]


def build(family: str, settings: dict[str, Any]) -> Any:
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **settings))


def ids(value: Any) -> str:
    if isinstance(value, str):
        return value
    return ",".join(key for key in value if key not in SHARED and key not in GPT2) or "plain"


@pytest.mark.parametrize(("family", "settings"), CASES, ids=ids)
def test_a_shape_is_what_transformers_builds(family: str, settings: dict[str, Any]) -> None:
    shape = shape_of({"model_type": family, **settings})
    model = build(family, settings)
    head = model.get_output_embeddings()
    linears = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not head
    }
    assert [linear.name for linear in shape.linears] == list(linears)
    for linear, module in zip(shape.linears, linears.values(), strict=True):
        transposed = isinstance(module, Conv1D)
        stored = tuple(module.weight.shape)
        size = (linear.out_features, linear.in_features)
        assert (size[::-1] if transposed else size) == stored, linear.name
        assert linear.bias == (module.bias is not None), linear.name
        assert linear.quantizable == (not transposed)
    inside = {f"{name}.{leaf}" for name in linears for leaf in ("weight", "bias")}
    others = {
        name: tuple(parameter.shape)
        for name, parameter in model.named_parameters(remove_duplicate=False)
        if name not in inside and name != "lm_head.weight"
    }
    assert {tensor.name: tensor.size for tensor in shape.other} == others
    assert model.lm_head is head
    assert (shape.head.out_features, shape.head.in_features) == tuple(head.weight.shape)
    assert shape.tied == model.config.tie_word_embeddings
    assert shape.total_parameters == _distinct(model)
    assert shape.other_parameters == _distinct(model) - sum(
        module.weight.numel() for module in linears.values()
    )


@pytest.mark.parametrize("family", sorted(BUILDERS))
def test_defaults_and_traits_are_those_of_transformers(family: str) -> None:
    settings = dict(GPT2 if family == "gpt2" else SIZES)
    if family in ("mistral", "qwen2", "qwen3", "gemma"):
        # their default numbers of key-value heads, 8, 32, 32 and 16, must divide the heads
        settings["num_attention_heads"] = 32
        settings["hidden_size"] = 64
    elif family in ("gemma2", "gemma3_text"):
        settings["num_attention_heads"] = 8
    shape = shape_of({"model_type": family, **settings})
    model = build(family, settings)
    assert shape.total_parameters == _distinct(model)
    assert shape.sdpa == model._supports_sdpa
    _compare_norms(shape, model)


def _compare_norms(shape: ModelShape, model: Any) -> None:
    names = [name for name, _ in model.named_modules() if ".1." in name]
    norms = [name for name in names if "norm" in name or ".ln_" in name]
    heads = [name for name in norms if "q_norm" in name or "k_norm" in name]
    assert shape.norms_per_layer == len(norms) - len(heads)
    assert shape.head_norms == bool(heads)
    assert shape.root_norms == any("RMSNorm" in type(each).__name__ for each in model.modules())


def _distinct(model: Any) -> int:
    # on the meta device tied tensors are two until tie_weights makes them one
    model.tie_weights()
    return sum(parameter.numel() for parameter in model.parameters())
