"""The fold on single weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from qtune.errors import ModelError
from qtune.methods.bitfit import Bitfit
from qtune.methods.lora import Lora
from qtune.recipe.methods import BitfitConfig, LoraConfig
from tests.methods.bases import attached, randomise

NAME = "base_model.model.layer"


def tensors(outputs: int = 6, inputs: int = 8, rank: int = 2) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        f"{NAME}.lora_A.weight": torch.randn(rank, inputs, generator=generator),
        f"{NAME}.lora_B.weight": torch.randn(outputs, rank, generator=generator),
        f"{NAME}.lora_magnitude_vector": torch.rand(outputs, generator=generator) + 0.5,
    }


def test_row_norms_of_a_merged_dora_are_its_magnitudes() -> None:
    config = LoraConfig(rank=2, alpha=4.0, use_dora=True)
    merged = Lora.merge_edits(config, tensors())["layer.weight"].apply(torch.randn(6, 8))
    assert torch.allclose(merged.norm(dim=1), tensors()[f"{NAME}.lora_magnitude_vector"])


def test_the_scale_is_that_of_the_pattern() -> None:
    config = LoraConfig(rank=9, alpha=4.0, rank_pattern={"lay.*": 2}, use_rslora=True)
    given = {name: tensor for name, tensor in tensors().items() if "magnitude" not in name}
    base = torch.randn(6, 8)
    merged = Lora.merge_edits(config, given)["layer.weight"].apply(base)
    down, up = given.values()
    assert torch.allclose(merged, base + 4 / 2**0.5 * up @ down, atol=1e-6)


def test_transposed_weights_of_gpt2() -> None:
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=1, n_head=2, vocab_size=50))
    model = model.eval().requires_grad_(False)
    plain = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    config = LoraConfig(rank=2, dropout=0.0, use_dora=True)
    method = attached(model, config)
    assert method.peft_config()["fan_in_fan_out"] is True
    randomise(method)
    model.eval()
    ids = torch.arange(10).unsqueeze(0)
    expected = model(ids).logits
    edits = Lora.merge_edits(config, method.adapter_state(), fan_in_fan_out=True)
    assert len(edits) == 4
    state = {name: edits[name].apply(t) if name in edits else t for name, t in plain.items()}
    fresh = GPT2LMHeadModel(model.config).eval()
    fresh.load_state_dict(state)
    assert torch.allclose(fresh(ids).logits, expected, atol=1e-5)


def test_another_base_and_a_lone_half_are_refused() -> None:
    config = LoraConfig(rank=2, use_dora=True)
    with pytest.raises(ModelError, match="another base"):
        Lora.merge_edits(config, tensors())["layer.weight"].apply(torch.randn(6, 9))
    for name in tensors():
        half = {key: tensor for key, tensor in tensors().items() if key != name}
        with pytest.raises(ModelError, match="lacks"):
            Lora.merge_edits(config, half)


def test_a_delta_bias_adds_to_a_bias_or_makes_one() -> None:
    delta = torch.randn(1, 4)
    edit = Bitfit.merge_edits(BitfitConfig(), {f"{NAME}.beft_bias": delta})["layer.bias"]
    assert edit.needs_base
    assert edit.may_create
    bias = nn.Linear(3, 4).bias.detach()
    assert torch.equal(edit.apply(bias), bias + delta[0])
    assert torch.equal(edit.apply(None), delta[0])
    with pytest.raises(ModelError, match="no delta-bias"):
        Bitfit.merge_edits(BitfitConfig(), tensors())
