"""Bottleneck adapters: where they stand, what they compute, and how many numbers they have."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from qtune.errors import UsageError
from qtune.methods import create
from qtune.plan.sites import Sites, sites_of
from qtune.recipe.methods import BottleneckConfig
from tests.tiny import tiny_llama

LAYERS = 2
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "vocab_size": 64,
    "max_position_embeddings": 32,
}
# (model type, its own settings, attention's end, MLP)
FAMILIES: list[tuple[str, dict[str, Any], str, str]] = [
    ("llama", {}, "self_attn.o_proj", "mlp"),
    ("gemma", {"head_dim": 8, "num_key_value_heads": 4}, "self_attn.o_proj", "mlp"),
    ("gpt_neox", {}, "attention.dense", "mlp"),
    ("phi", {}, "self_attn.dense", "mlp"),
    ("gpt2", {"n_embd": 32, "n_head": 4, "n_layer": LAYERS}, "attn.c_proj", "mlp"),
    ("falcon", {"new_decoder_architecture": False}, "self_attention.dense", "mlp"),
    ("bloom", {"n_head": 4, "n_layer": LAYERS}, "self_attention.dense", "mlp"),
    ("opt", {"ffn_dim": 64, "word_embed_proj_dim": 32}, "self_attn.out_proj", "fc2"),
]


def _model(family: str, settings: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    sizes = {"vocab_size": 64} if family == "gpt2" else SIZES
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **sizes | settings))
    return model.requires_grad_(False).eval()


@pytest.mark.parametrize(("family", "settings", "attention", "mlp"), FAMILIES)
def test_it_stands_behind_attention_and_mlp(
    family: str, settings: dict[str, Any], attention: str, mlp: str
) -> None:
    model = _model(family, settings)
    method = create(BottleneckConfig(placement="houlsby", width=3), seed=0)
    before = model(input_ids=torch.arange(8)[None]).logits
    method.attach(model)
    assert torch.equal(model(input_ids=torch.arange(8)[None]).logits, before)
    ends = [name.split(f".{layer}.")[1] for name in method.adapters for layer in range(LAYERS)
            if f".{layer}." in name]  # fmt: skip
    assert ends == [attention, mlp] * LAYERS
    count = sum(parameter.numel() for parameter in method.parameters().values())
    assert count == 2 * LAYERS * (2 * 3 * 32 + 3 + 32)


@pytest.mark.parametrize("placement", ["pfeiffer", "houlsby", "parallel"])
def test_it_computes_what_the_papers_say(placement: Any) -> None:
    """Against hooks on the untouched model that compute the same in plain torch."""
    config = BottleneckConfig(placement=placement, width=5, activation="silu", scale=1.5)
    model, plain = tiny_llama(), tiny_llama()
    plain.load_state_dict(model.state_dict())
    method = create(config, seed=0)
    model.requires_grad_(False).eval()
    plain.eval()
    method.attach(model)
    draw = torch.Generator().manual_seed(2)
    for name, adapter in method.adapters.items():
        for parameter in adapter.tensors().values():
            parameter.data.normal_(0, 0.3, generator=draw)
        parts = {key: value.detach() for key, value in adapter.tensors().items()}

        def hook(_: Any, args: Any, output: Any, parts: Any = parts) -> Any:
            source = args[0] if placement == "parallel" else output
            inner = source @ parts["bottleneck_down.weight"].T + parts["bottleneck_down.bias"]
            inner = inner * inner.sigmoid()
            added = inner @ parts["bottleneck_up.weight"].T + parts["bottleneck_up.bias"]
            return output + 1.5 * added

        plain.get_submodule(name).register_forward_hook(hook)
    ids = torch.arange(3, 15)[None]
    found, wanted = model(input_ids=ids).logits, plain(input_ids=ids).logits
    assert torch.allclose(found, wanted, atol=1e-5)
    with method.disabled():
        assert (model(input_ids=ids).logits - wanted).abs().max() > 1e-2


def test_beside_the_mlp_needs_a_module_of_the_mlp() -> None:
    method = create(BottleneckConfig(placement="parallel"), seed=0)
    with pytest.raises(UsageError, match="no module for the MLP alone"):
        method.attach(_model(*FAMILIES[-1][:2]))


def test_a_layer_that_is_not_there_is_refused() -> None:
    with pytest.raises(UsageError, match="no layer of the model"):
        create(BottleneckConfig(layers_to_transform=(7,)), seed=0).attach(_model("llama", {}))


def test_parallel_adds_four_times_unless_told() -> None:
    assert BottleneckConfig(placement="parallel").factor == 4
    assert BottleneckConfig(placement="houlsby").factor == 1
    assert BottleneckConfig(placement="parallel", scale=0.5).factor == 0.5


def test_experts_count_as_one_mlp() -> None:
    layer = {"self_attn.q_proj": 32, "self_attn.k_proj": 8, "self_attn.o_proj": 32}
    layer |= {f"mlp.experts.{number}.down_proj": 32 for number in range(3)}
    outputs = {f"model.layers.{n}.{name}": size for n in range(2) for name, size in layer.items()}
    assert sites_of(outputs, hidden_size=32) == tuple(
        Sites(n, f"model.layers.{n}.self_attn.o_proj", f"model.layers.{n}.mlp", apart=True)
        for n in range(2)
    )
