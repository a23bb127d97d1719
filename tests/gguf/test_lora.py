"""A LoRA alone as GGUF: its effect by llama.cpp's rules, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from qtune import methods
from qtune.errors import CheckError, ModelError
from qtune.gguf import lora, reading
from qtune.gguf.architecture import shape_of
from qtune.recipe.methods import BitfitConfig, LoraConfig
from tests.gguf import workshop
from tests.gguf.straight import Straight
from tests.gguf.test_model import IDS, theirs, write


def trained(folder: Path, model: Any, config: Any) -> methods.AdapterFile:
    """An adapter with numbers in it, on the model, and read from its folder."""
    method = methods.create(config, seed=1)
    method.attach(model)
    torch.manual_seed(4)
    with torch.no_grad():
        for parameter in method.parameters().values():
            parameter.add_(0.1 * torch.randn_like(parameter))
    methods.save(folder, method, base_model="base", base_fingerprint="f")
    return methods.read(folder)


PLAIN = {"target_modules": "all-linear", "dropout": 0.0, "rank": 4, "alpha": 16.0}
SETTINGS = {
    "plain": {},
    "rslora": {"use_rslora": True},
    "patterns": {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"k_proj": 3.0}},
}


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("family", ["llama", "qwen3 yarn", "llama with biases, linear"])
def test_its_effect_by_llama_cpps_rules_is_the_adapters(
    name: str, family: str, tmp_path: Path
) -> None:
    model = workshop.model_of(workshop.CONFIGS[family]())
    write(workshop.saved(tmp_path / "model", model), tmp_path / "base.gguf")
    before = theirs(model)
    config = LoraConfig(**PLAIN, **SETTINGS[name])
    adapter = trained(tmp_path / "adapter", model, config)
    shape = shape_of(model.config, place="model")
    lows, alpha = lora.factors(adapter, shape)
    path = tmp_path / "lora.gguf"
    lora.write_lora(lows, alpha, shape, path, dtype="f32", about={"name": "tiny"})
    lora.compare(lows, reading.File(path), dtype="f32")
    wanted = theirs(model)
    found = Straight(tmp_path / "base.gguf", path).logits(IDS)
    assert np.abs(wanted - before).max() > 0.05
    assert np.abs(found - wanted).max() < 3e-5 * np.abs(wanted).max()
    own = workshop.model_of(workshop.CONFIGS[family]())
    lora.fold(own, reading.File(path), shape)
    assert np.abs(theirs(own) - wanted).max() < 3e-5 * np.abs(wanted).max()


def test_names_shapes_and_head(tmp_path: Path) -> None:
    model = workshop.model_of(workshop.CONFIGS["llama"]())
    adapter = trained(tmp_path / "adapter", model, LoraConfig(**PLAIN))
    shape = shape_of(model.config, place="model")
    lows, alpha = lora.factors(adapter, shape)
    path = tmp_path / "lora.gguf"
    lora.write_lora(lows, alpha, shape, path, dtype="f16", about={"name": "tiny"})
    file = reading.File(path)
    assert file.fields["general.type"] == "adapter"
    assert file.fields["adapter.type"] == "lora"
    assert file.fields["adapter.lora.alpha"] == 16.0
    assert len(file.names) == 2 * 2 * 7
    assert file.tensor("blk.1.attn_v.weight.lora_a").shape == (4, 64)
    assert file.tensor("blk.1.attn_v.weight.lora_b").shape == (32, 4)
    lora.compare(lows, file, dtype="f16")
    lows[0].up[0, 0] += 1
    with pytest.raises(CheckError, match="another one"):
        lora.compare(lows, file, dtype="f16")


@pytest.mark.parametrize(
    ("config", "match"),
    [
        (LoraConfig(**PLAIN, use_dora=True), "DoRA"),
        (LoraConfig(**PLAIN, modules_to_save=("lm_head",)), "modules_to_save"),
        (BitfitConfig(), "bitfit is no LoRA"),
    ],
)
def test_what_gguf_cannot_carry_is_refused(config: Any, match: str, tmp_path: Path) -> None:
    model = workshop.model_of(workshop.CONFIGS["llama with biases, linear"]())
    shape = shape_of(model.config, place="model")
    adapter = trained(tmp_path / "adapter", model, config)
    with pytest.raises(ModelError, match=match) as caught:
        lora.factors(adapter, shape)
    assert "--to gguf" in str(caught.value)


def test_a_tied_head_is_refused(tmp_path: Path) -> None:
    model = workshop.model_of(workshop.CONFIGS["llama tied, wide heads"]())
    shape = shape_of(model.config, place="model")
    adapter = trained(tmp_path / "adapter", model, LoraConfig(**PLAIN))
    of_head = {
        f"base_model.model.lm_head.lora_{side}.weight": torch.ones(size)
        for side, size in (("A", (4, 64)), ("B", (352, 4)))
    }  # as PEFT may write it
    with pytest.raises(ModelError, match="tied to the embedding"):
        lora.factors(replace(adapter, tensors=of_head), shape)
