"""A base whose rows are no whole blocks of 64, which bitsandbytes' CPU kernels misread."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from transformers import AutoModelForCausalLM

from qtune import models
from qtune.models.own_product import OwnProduct
from qtune.ops.nf4 import bits_of, weight_of
from qtune.recipe.inputs import ModelSection, QuantizationSection
from tests.models.workshop import CPU
from tests.tiny import save_tiny, tiny_llama

if TYPE_CHECKING:
    from pathlib import Path


def test_every_layer_multiplies_with_what_its_codes_say(tmp_path: Path) -> None:
    wide = {"hidden_size": 96, "intermediate_size": 224, "num_attention_heads": 4, "head_dim": 24}
    folder = save_tiny(tmp_path / "base", tiny_llama(num_key_value_heads=2, **wide))
    section = QuantizationSection(compute_dtype="float32")
    model = ModelSection(name_or_path=str(folder))
    base = models.load(model, section, device=CPU, activations="none").model
    dense = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    layers = {name: each for name, each in base.named_modules() if bits_of(each) == 4}
    assert len(layers) == 14
    for name, layer in layers.items():
        assert isinstance(layer, OwnProduct)
        own = dense.get_submodule(name).weight
        assert (weight_of(layer) - own).norm() / own.norm() < 0.12
        x = torch.randn(3, own.shape[1])
        torch.testing.assert_close(layer(x), x @ weight_of(layer).t(), rtol=1e-5, atol=1e-6)
