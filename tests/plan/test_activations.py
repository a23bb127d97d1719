"""The formula of kept activations against what autograd really keeps, family by family."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from qtune import methods
from qtune.models import activations
from qtune.models.fuse import fuse
from qtune.plan import ModelShape, shape_of
from qtune.plan.activations import Activations, activations_of
from qtune.plan.adapters import adapted_linears
from qtune.plan.fused import fuses
from tests.plan.counting import Counting
from tests.plan.given import LLAMA_65B, TINY, recipe

if TYPE_CHECKING:
    from qtune.recipe.sections import Recipe
    from qtune.recipe.steps import ActivationPolicy, Kernels

ROWS, LENGTH = 2, 96
WIDTHS = {
    "hidden_size": 256,
    "intermediate_size": 704,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 32,
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
    "n_embd": 256,
    "n_layer": 4,
    "n_head": 8,
    "n_positions": 256,
    "vocab_size": 320,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "resid_pdrop": 0.0,
    "embd_pdrop": 0.0,
    "attn_pdrop": 0.0,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": WIDTHS,
    "qwen2": WIDTHS,
    "qwen3": WIDTHS,
    "gemma2": WIDTHS,
    "phi3": WIDTHS,
    "gpt2": GPT2,
    "gpt_neox": NEOX,
}
METHODS: dict[str, dict[str, Any]] = {
    "fp32": {"name": "lora", "rank": 8, "dropout": 0.0},
    "dropout": {"name": "lora", "rank": 8, "dropout": 0.1},
    "bf16": {"name": "lora", "rank": 8, "dropout": 0.0, "dtype": "bfloat16"},
}
METHODS |= {
    "lora_fa": {"name": "lora_fa", "rank": 8, "dropout": 0.0},
    "lora_fa dropout": {"name": "lora_fa", "rank": 8, "dropout": 0.1, "dtype": "bfloat16"},
    "adalora": {"name": "adalora", "rank": 8, "target_rank": 4, "dropout": 0.0},
    "prefix": {"name": "prefix", "num_virtual_tokens": 10},
    "houlsby": {"name": "bottleneck", "placement": "houlsby", "width": 32},
    "pfeiffer": {"name": "bottleneck", "placement": "pfeiffer", "width": 32, "activation": "silu"},
    "parallel": {"name": "bottleneck", "placement": "parallel", "width": 32},
    "long_lora": {"name": "long_lora", "rank": 8, "dropout": 0.0},
    "norms": {"name": "selective"},
    "last attention": {
        "name": "selective",
        "parts": ["attention"],
        "layers_to_transform": "last:1",
    },
    "mlp": {"name": "selective", "parts": ["mlp"]},
    "last layers": {"name": "lora", "rank": 8, "dropout": 0.0, "layers_to_transform": [2, 3]},
}
OTHERS = [*METHODS][3:]
CASES = [
    *(("llama", "plain", method) for method in OTHERS),
    ("llama", "auto", "lora_fa"),
    *((family, "plain", "fp32") for family in FAMILIES),
    *((family, "auto", "fp32") for family in ("llama", "qwen3", "gemma2", "phi3")),
    *(("llama", kernels, method) for kernels in ("plain", "auto") for method in [*METHODS][:3]),
]


def asked_for(family: str, kernels: str, method: str) -> Recipe:
    attention = "eager" if family == "gemma2" else "sdpa"
    return recipe(
        model={"name_or_path": "x", "attn_implementation": attention},
        method=METHODS[method],
        memory={"kernels": kernels},
        max_length=LENGTH,
    )


def predicted(asked: Recipe, shape: ModelShape, policy: ActivationPolicy) -> tuple[int, int]:
    """(kept after the forward pass, at most in the backward), a token."""
    each = of(asked, shape, LENGTH, device="cpu")
    final = each.ends - each.layer_input  # nothing is taken out for supervised positions here
    layers = each.layers
    if policy == "none":
        return each.kept + final, each.kept + max(each.in_flight, final)
    if policy == "selective":
        kept = layers * (each.layer_input + each.products)
        return kept + final, kept + each.in_flight + max(0, each.largest_layer - each.products)
    kept = layers * each.layer_input
    return kept + final, kept + each.in_flight + each.largest_layer


def network(family: str, asked: Recipe) -> Any:
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **FAMILIES[family])
    config._attn_implementation = asked.model.attn_implementation
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model


@pytest.mark.parametrize("policy", ["none", "selective", "layer", "offload"])
@pytest.mark.parametrize(("family", "kernels", "method"), CASES)
def test_what_a_pass_keeps_is_predicted_within_a_twentieth(
    family: str, kernels: Kernels, method: str, policy: ActivationPolicy
) -> None:
    asked = asked_for(family, kernels, method)
    model = network(family, asked)
    learned = methods.create(asked.method, seed=0)
    learned.attach(model)
    activations.use(model, policy)
    fuse(model, kernels, policy)
    model.train()
    ids = torch.randint(3, 300, (ROWS, LENGTH))
    mask = torch.ones_like(ids)
    mask[1, 80:] = 0
    with Counting() as counted:
        output = model.base_model(input_ids=ids, attention_mask=mask, use_cache=False)
        kept = counted.alive
        hidden = output.last_hidden_state
        hidden.backward(torch.ones_like(hidden))
    gradients = sum(tensor.nbytes for tensor in learned.parameters().values())
    shape = shape_of({"model_type": family, **FAMILIES[family]})
    tokens = hidden.shape[0] * hidden.shape[1]
    expected, peak = (tokens * each for each in predicted(asked, shape, policy))
    # masks and rotations are made once for all layers: nothing beside what a real model keeps
    once = 5 * ROWS * LENGTH * LENGTH + 4 * LENGTH * 16 * ROWS
    assert kept == pytest.approx(expected, rel=0.05, abs=once)
    if gradients < kept / 10:  # else they are what there is most of, and come one by one
        assert counted.peak - gradients == pytest.approx(peak, rel=0.15, abs=once)


def of(
    asked: Recipe,
    shape: ModelShape,
    length: int = 512,
    *,
    device: Literal["cpu", "cuda"] = "cuda",
) -> Activations:
    adapted = adapted_linears(asked.method, shape)
    return activations_of(asked, shape, adapted, compute_bytes=2, length=length, device=device)


def test_a_layer_of_65b_by_hand() -> None:
    method = {"name": "lora", "rank": 16, "dropout": 0.1, "dtype": "bfloat16"}
    plain, fused = (
        of(recipe(method=method, memory={"kernels": kernels}), shape_of(LLAMA_65B))
        for kernels in ("plain", "auto")
    )
    hidden, width = 8192, 22016
    own = 2 * 4 * hidden + 4 * 2 * hidden + 4 * 64 + 3 * 2 * width
    adapters = 7 * 2 * 16 + (2 + 1) * (6 * hidden + width)
    assert plain.largest_layer == own + adapters
    assert plain.kept == 80 * plain.largest_layer
    assert plain.layer_input == 2 * hidden
    assert plain.in_flight == 2 * (2 * width + hidden) + 2 * width + 8 * hidden
    own = 2 * 2 * hidden + 8 + 4 * 2 * hidden + 4 * 64 + 2 * 2 * width
    assert fused.kept == 80 * (own + 7 * 2 * 16 + 6 * hidden + width)
    assert fused.products == fused.largest_layer - 2 * 2 * width - 2 * hidden
    # gate and up are 2 of the 7 products, which are 4 h^2 + 3 h f
    assert fused.again == 2 * hidden * width / (4 * hidden**2 + 3 * hidden * width)


def test_adapters_on_one_layer_make_that_layer_the_largest() -> None:
    shape = shape_of(TINY)
    plain = {"kernels": "plain"}
    few = recipe(method={"name": "lora", "rank": 4, "layers_to_transform": [1]}, memory=plain)
    every = recipe(method={"name": "lora", "rank": 4}, memory=plain)
    none = recipe(method={"name": "bitfit"}, memory=plain)
    by_recipe = [of(each, shape) for each in (none, few, every)]
    assert by_recipe[0].largest_layer < by_recipe[1].largest_layer == by_recipe[2].largest_layer
    assert by_recipe[2].kept == 2 * by_recipe[1].kept > by_recipe[0].kept  # of two layers
    assert [each.layers for each in by_recipe] == [2, 1, 2]


@pytest.mark.parametrize(
    ("family", "method", "kernels", "expected"),
    [
        ("llama", "lora", "auto", True),
        ("qwen3", "prompt", "fused", True),
        ("llama", "lora", "plain", False),
        ("phi3", "lora", "auto", True),
        ("llama", "bitfit", "auto", False),
    ],
)
def test_blocks_are_fused_as_the_model_will_be(
    family: str, method: str, kernels: str, expected: bool
) -> None:
    shape = shape_of({"model_type": family, **WIDTHS})
    asked = recipe(method={"name": method}, memory={"kernels": kernels})
    assert fuses(asked, shape) is expected


def test_eager_attention_grows_with_the_length() -> None:
    eager = {"name_or_path": "x", "attn_implementation": "eager"}
    short, long = (
        of(recipe(model=eager, method={"name": "bitfit"}), shape_of(TINY), length)
        for length in (100, 300)
    )
    # scores in fp32 and bf16 for each of 4 heads and 200 more positions
    assert long.largest_layer - short.largest_layer == 4 * (4 + 2) * 200
