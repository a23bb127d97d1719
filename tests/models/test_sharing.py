"""Where rows may share their first tokens, and that a model which cannot is found out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from qtune import methods
from qtune.errors import ModelError
from qtune.models import check_sharing, fuse, why_apart
from qtune.recipe.methods import LoraConfig, MethodConfig, PrefixConfig
from tests import tiny
from tests.tiny import tiny_llama

SIZES = tiny.SIZES | {"head_dim": 16, "pad_token_id": 2}


def family(name: str, **settings: Any) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **SIZES | settings))


def fused(model: Any, method: MethodConfig | None = None) -> Any:
    model.requires_grad_(False)
    chosen = methods.create(method or LoraConfig(rank=4), seed=0)
    chosen.attach(model)
    for parameter in chosen.parameters().values():
        parameter.data.normal_(0, 0.05, generator=torch.Generator().manual_seed(3))
    fuse(model, "auto", "none")
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["llama", "mistral", "qwen2", "qwen3", "gemma"])
def test_known_families_share(name: str, dtype: torch.dtype) -> None:
    settings = {"sliding_window": None} if name == "mistral" else {}
    model = fused(family(name, **settings).to(dtype))
    assert why_apart(model) == ""
    check_sharing(model, vocabulary=320)


def test_why_not() -> None:
    assert why_apart(fused(family("mistral", sliding_window=8))) == "with a sliding window"
    assert why_apart(tiny_llama()) == "the attention is not fused"
    assert why_apart(fused(tiny_llama(), PrefixConfig())) == "with qtune_prefix attention"
    eager = tiny_llama()
    eager.set_attn_implementation("eager")
    assert why_apart(fused(eager)) == "with eager attention"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_that_sees_the_row_before_is_found_out(dtype: torch.dtype) -> None:
    model = fused(tiny_llama().to(dtype))

    def blind(_: Any, args: Any, given: dict[str, Any]) -> Any:
        mask = given.get("attention_mask")
        if mask is not None:
            given["attention_mask"] = torch.ones_like(mask).tril()
        return args, given

    for layer in model.model.layers:
        layer.self_attn.register_forward_pre_hook(blind, with_kwargs=True)
    with pytest.raises(ModelError, match="share their first tokens"):
        check_sharing(model, vocabulary=320)


def test_a_model_that_counts_positions_itself_is_found_out() -> None:
    model = fused(tiny_llama())

    def counted(_: Any, args: Any, given: dict[str, Any]) -> Any:
        positions = torch.arange(given["input_ids"].shape[1])[None]
        return args, {**given, "position_ids": positions}

    model.model.register_forward_pre_hook(counted, with_kwargs=True)
    with pytest.raises(ModelError, match="share their first tokens"):
        check_sharing(model, vocabulary=320)


def test_rounding_that_a_model_amplifies_is_no_fault() -> None:
    """Sharp attention amplifies rounding beyond what is usual, and faults far more."""
    model = family("llama").to(torch.bfloat16)
    for name, weight in model.named_parameters():
        if "q_proj" in name or "k_proj" in name:
            weight.data *= 6
    check_sharing(fused(model), vocabulary=320)
