"""Groups and scales of LoRA on a whole model."""

from __future__ import annotations

import pytest
import torch

from qtune.methods.lora_linear import LoraLinear
from qtune.recipe.methods import BitfitConfig, LoraConfig
from tests.methods.bases import CASES, attached
from tests.tiny import tiny_llama


def test_loraplus_speeds_up_b_alone() -> None:
    config = LoraConfig(
        use_dora=True, loraplus_ratio=16.0, target_modules=("q_proj",), modules_to_save=("norm",)
    )
    method = attached(tiny_llama().requires_grad_(False), config)
    names = {id(parameter): name for name, parameter in method.parameters().items()}
    seen = {}
    for group in method.param_groups(learning_rate=1e-4, weight_decay=0.1):
        for tensor in group["params"]:
            seen[names[id(tensor)]] = (group["lr"], group["weight_decay"])
    assert set(seen) == set(names.values())
    for name, (rate, decay) in seen.items():
        assert rate == pytest.approx(16e-4 if "lora_B" in name else 1e-4), name
        assert decay == (0.1 if "lora_A" in name or "lora_B" in name else 0.0), name


def test_without_loraplus_matrices_decay_and_vectors_do_not() -> None:
    method = attached(tiny_llama().requires_grad_(False), LoraConfig(rank=1, use_dora=True))
    matrices, vectors = method.param_groups(learning_rate=1e-4, weight_decay=0.1)
    assert (matrices["weight_decay"], vectors["weight_decay"]) == (0.1, 0.0)
    assert {tensor.ndim for tensor in matrices["params"]} == {2}
    (biases,) = attached(tiny_llama().requires_grad_(False), BitfitConfig()).param_groups(
        learning_rate=1e-4, weight_decay=0.1
    )
    assert biases["weight_decay"] == 0.0


def test_patterns_give_rank_and_scale() -> None:
    method = attached(tiny_llama().requires_grad_(False), CASES["patterns"])
    found = {
        name.removeprefix("model.layers."): (adapter.down.shape[0], adapter.scale)
        for name, adapter in method.adapters.items()
        if isinstance(adapter, LoraLinear)
    }
    assert found == {
        "0.self_attn.q_proj": (4, 2.0),
        "0.self_attn.v_proj": (4, 0.75),
        "0.mlp.down_proj": (2, 4.0),
        "1.self_attn.q_proj": (6, 8 / 6),
        "1.self_attn.v_proj": (6, 0.5),
        "1.mlp.down_proj": (2, 4.0),
    }


def test_adapters_in_bfloat16_when_asked() -> None:
    config = LoraConfig(dtype="bfloat16", use_dora=True, modules_to_save=("lm_head",))
    method = attached(tiny_llama().requires_grad_(False), config)
    assert {tensor.dtype for tensor in method.parameters().values()} == {torch.bfloat16}


def test_it_attaches_to_a_model_without_memory() -> None:
    with torch.device("meta"):
        model = tiny_llama().requires_grad_(False)
    method = attached(model, LoraConfig(use_dora=True))
    assert {tensor.device.type for tensor in method.parameters().values()} == {"meta"}
