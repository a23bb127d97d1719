"""Which layers count as linear, and what they are called."""

from __future__ import annotations

from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from qtune.ops.linears import features, linear_modules, output_head
from tests.tiny import tiny_llama

LLAMA_LAYER = [
    *(f"self_attn.{part}_proj" for part in "qkvo"),
    *(f"mlp.{part}_proj" for part in ("gate", "up", "down")),
]


def test_every_linear_of_a_llama_but_the_head_in_order() -> None:
    model = tiny_llama()
    names = [f"model.layers.{layer}.{part}" for layer in range(2) for part in LLAMA_LAYER]
    found = linear_modules(model)
    assert list(found) == names
    assert output_head(model) is model.lm_head
    assert features(found["model.layers.1.mlp.down_proj"]) == (128, 64)


def test_conv1d_counts_with_its_sizes_the_right_way_round() -> None:
    model = GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=1, n_head=2, vocab_size=50))
    found = linear_modules(model)
    assert "lm_head" not in found
    assert features(found["transformer.h.0.attn.c_attn"]) == (32, 96)


def test_a_model_without_a_head_keeps_all() -> None:
    stack = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    assert list(linear_modules(stack)) == ["0", "2"]
