"""The formula of kept activations against what autograd really keeps, family by family."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from qtune import methods
from qtune.plan import ModelShape, shape_of
from qtune.plan.activations import Activations, activations_of
from qtune.plan.adapters import adapted_linears
from qtune.recipe.sections import Recipe
from tests.plan.given import LLAMA_65B, TINY, recipe

ROWS, LENGTH = 2, 64
WIDTHS = {
    "hidden_size": 128,
    "intermediate_size": 320,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 320,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
NEOX = {
    key: value for key, value in WIDTHS.items() if key not in ("num_key_value_heads", "head_dim")
}
GPT2 = {
    "n_embd": 128,
    "n_layer": 3,
    "n_head": 8,
    "n_positions": 256,
    "vocab_size": 320,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "resid_pdrop": 0.0,
    "embd_pdrop": 0.0,
    "attn_pdrop": 0.0,
}
METHODS: dict[str, dict[str, Any]] = {
    "dropout": {"name": "lora", "rank": 8, "dropout": 0.1},
    "bf16": {"name": "lora", "rank": 8, "dropout": 0.0, "dtype": "bfloat16"},
    "dora": {"name": "lora", "rank": 8, "dropout": 0.0, "use_dora": True},
    "bitfit": {"name": "bitfit"},
}


def predicted(
    family: str, settings: dict[str, Any], method: dict[str, Any], dtype: str, attention: str
) -> Activations:
    asked = recipe(
        model={"name_or_path": "x", "attn_implementation": attention},
        method=method,
        max_length=LENGTH,
    )
    shape = shape_of({"model_type": family, **settings})
    return activations_of(
        asked,
        shape,
        adapted_linears(asked.method, shape),
        compute_bytes=2 if dtype == "bfloat16" else 4,
        length=LENGTH,
        dropout_mask_bytes=2 if method.get("dtype") == "bfloat16" else 4,
    )


def kept_bytes(model: Any) -> int:
    """Bytes of the distinct storages that one forward pass saves, without weights and buffers."""
    own = {tensor.untyped_storage().data_ptr() for tensor in model.parameters()}
    own |= {tensor.untyped_storage().data_ptr() for tensor in model.buffers()}
    saved: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        address = tensor.untyped_storage().data_ptr()
        if address not in own:
            saved.setdefault(address, tensor)
        return tensor

    ids = torch.randint(3, 300, (ROWS, LENGTH))
    mask = torch.ones_like(ids)
    mask[1, 50:] = 0
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = model.base_model(input_ids=ids, attention_mask=mask, use_cache=False)
    assert output.last_hidden_state.requires_grad
    return sum(tensor.untyped_storage().nbytes() for tensor in saved.values())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize(
    ("family", "settings", "attention"),
    [
        ("llama", WIDTHS, "sdpa"),
        ("llama", WIDTHS, "eager"),
        ("qwen3", WIDTHS, "sdpa"),
        ("gemma2", WIDTHS, "eager"),
        ("phi3", WIDTHS, "sdpa"),
        ("gpt2", GPT2, "sdpa"),
        ("gpt_neox", NEOX, "sdpa"),
    ],
)
def test_what_is_kept_is_predicted_within_a_tenth(
    family: str, settings: dict[str, Any], attention: str, dtype: str, method: str
) -> None:
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **settings)
    config._attn_implementation = attention
    model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype)).train()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    expected = predicted(family, settings, METHODS[method], dtype, attention)
    asked = recipe(method=METHODS[method])
    methods.create(asked.method, seed=0).attach(model)
    tokens = ROWS * LENGTH
    assert tokens * (expected.kept + expected.ends) == pytest.approx(kept_bytes(model), rel=0.1)


def of(asked: Recipe, shape: ModelShape, length: int = 512) -> Activations:
    adapted = adapted_linears(asked.method, shape)
    return activations_of(
        asked, shape, adapted, compute_bytes=2, length=length, dropout_mask_bytes=1
    )


def test_a_layer_of_65b_by_hand() -> None:
    asked = recipe(method={"name": "lora", "rank": 16, "dropout": 0.1, "dtype": "bfloat16"})
    shape = shape_of(LLAMA_65B)
    found = of(asked, shape)
    hidden, width = 8192, 22016
    own = 2 * 4 * hidden + 4 * 2 * hidden + 4 * 64 + 3 * 2 * width
    adapters = 7 * 2 * 16 + (2 + 1) * (6 * hidden + width)
    assert found.largest_layer == own + adapters
    assert found.kept == 80 * found.largest_layer
    assert found.layer_input == 2 * hidden
    assert found.in_flight == 2 * 2 * 2 * width


def test_adapters_on_one_layer_make_that_layer_the_largest() -> None:
    shape = shape_of(TINY)
    few = recipe(method={"name": "lora", "rank": 4, "layers_to_transform": [1]})
    every = recipe(method={"name": "lora", "rank": 4})
    none = recipe(method={"name": "bitfit"})
    by_recipe = [of(each, shape) for each in (none, few, every)]
    assert by_recipe[0].largest_layer < by_recipe[1].largest_layer == by_recipe[2].largest_layer
    added = [each.kept - by_recipe[0].kept for each in by_recipe]
    assert added[2] == 2 * added[1] > 0


def test_eager_attention_grows_with_the_length() -> None:
    eager = {"name_or_path": "x", "attn_implementation": "eager"}
    short, long = (
        of(recipe(model=eager, method={"name": "bitfit"}), shape_of(TINY), length)
        for length in (100, 300)
    )
    # scores in fp32 and bf16 for each of 4 heads and 200 more positions
    assert long.largest_layer - short.largest_layer == 4 * (4 + 2) * 200
