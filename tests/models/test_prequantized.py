"""Checkpoints quantised before: the same model, or a refusal that names what is wrong."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from qtune.errors import ModelError, UsageError
from qtune.ops.nf4 import bits_of, weight_of
from tests.models.workshop import (
    IDS,
    adapt,
    edit_config,
    edit_tensors,
    gradients,
    load_folder,
    logits,
)
from tests.tiny import save_tiny

if TYPE_CHECKING:
    from pathlib import Path

LAYER = "model.layers.1.mlp.up_proj"


def save_packed(folder: Path, **config: Any) -> Path:
    """A tiny model quantised and saved by transformers and bitsandbytes themselves."""
    save_tiny(folder / "dense")
    settings = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", **config}
    settings.setdefault("bnb_4bit_use_double_quant", True)
    model = AutoModelForCausalLM.from_pretrained(
        folder / "dense",
        dtype=torch.float32,
        quantization_config=BitsAndBytesConfig(**settings),
    )
    model.save_pretrained(folder / "packed")
    return folder / "packed"


@pytest.mark.parametrize(
    ("config", "recipe"),
    [
        ({}, {}),
        ({"bnb_4bit_quant_type": "fp4"}, {"quant_type": "fp4"}),
        ({"bnb_4bit_use_double_quant": False}, {"double_quant": False}),
        ({"load_in_4bit": False, "load_in_8bit": True}, {"bits": 8}),
        ({"bnb_4bit_quant_storage": "bfloat16"}, {}),
    ],
)
def test_it_is_the_model_that_the_dense_one_gives(
    config: dict[str, Any], recipe: dict[str, Any], tmp_path: Path
) -> None:
    packed = load_folder(save_packed(tmp_path, **config), **recipe)
    dense = load_folder(tmp_path / "dense", **recipe)
    assert packed.inventory == dense.inventory
    for name, module in dense.model.named_modules():
        if bits_of(module) < 16:
            assert torch.equal(weight_of(packed.model.get_submodule(name)), weight_of(module))
    assert torch.equal(logits(packed.model), logits(dense.model))
    found = gradients(packed.model, adapt(packed.model))
    wanted = gradients(dense.model, adapt(dense.model))
    assert all(torch.equal(old, new) for old, new in zip(wanted, found, strict=True))


def test_a_layer_that_the_quantiser_skipped_stays_dense(tmp_path: Path) -> None:
    skip = ["lm_head", LAYER]
    base = load_folder(save_packed(tmp_path, llm_int8_skip_modules=skip))
    assert bits_of(base.model.get_submodule(LAYER)) == 16
    assert base.inventory.row("4-bit").tensors == 13


@pytest.mark.parametrize(
    "constant",
    ["absmax", "quant_map", "nested_absmax", "nested_quant_map", "quant_state.bitsandbytes__nf4"],
)
def test_a_lost_constant_is_named(constant: str, tmp_path: Path) -> None:
    name = f"{LAYER}.weight.{constant}"
    folder = save_packed(tmp_path)
    edit_tensors(folder, lambda tensors: tensors.pop(name))
    with pytest.raises(ModelError, match=f"{name} is missing"):
        load_folder(folder)


def test_a_lost_int8_constant_or_weight_is_named(tmp_path: Path) -> None:
    folder = save_packed(tmp_path, load_in_4bit=False, load_in_8bit=True)
    edit_tensors(folder, lambda tensors: tensors.pop(f"{LAYER}.SCB"))
    with pytest.raises(ModelError, match=rf"{LAYER}\.SCB is missing"):
        load_folder(folder, bits=8)


def test_a_lost_weight_is_named(tmp_path: Path) -> None:
    folder = edit_tensors(save_packed(tmp_path), lambda t: t.pop(f"{LAYER}.weight"))
    with pytest.raises(ModelError, match=rf"{LAYER}\.weight is missing"):
        load_folder(folder)


@pytest.mark.parametrize("constant", ["absmax", "nested_absmax"])
def test_a_cut_constant_is_told(constant: str, tmp_path: Path) -> None:
    name = f"{LAYER}.weight.{constant}"

    def cut(tensors: dict[str, torch.Tensor]) -> None:
        tensors[name] = tensors[name][:0].clone()

    folder = edit_tensors(save_packed(tmp_path), cut)
    with pytest.raises(ModelError, match=f"{name} holds 0 values"):
        load_folder(folder)


def test_a_constant_that_is_not_finite_is_told(tmp_path: Path) -> None:
    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        tensors[f"{LAYER}.weight.nested_absmax"][0] = torch.nan

    folder = edit_tensors(save_packed(tmp_path), spoil)
    with pytest.raises(ModelError, match=r"nested_absmax.* holds nan"):
        load_folder(folder)


@pytest.mark.parametrize(
    ("recipe", "key"),
    [
        ({"quant_type": "fp4"}, "quant_type"),
        ({"double_quant": False}, "double_quant"),
        ({"bits": 8}, "bits"),
        ({"bits": 16}, "bits"),
        ({"skip_modules": ["up_proj"]}, "skip_modules"),
    ],
)
def test_a_recipe_that_says_otherwise_is_refused(
    recipe: dict[str, Any], key: str, tmp_path: Path
) -> None:
    folder = save_packed(tmp_path)
    with pytest.raises(UsageError, match="already quantised") as caught:
        load_folder(folder, **recipe)
    assert caught.value.faults[0].place == f"quantization.{key}"


def test_the_compute_dtype_of_the_recipe_counts(tmp_path: Path) -> None:
    model = load_folder(save_packed(tmp_path), compute_dtype="bfloat16").model
    assert weight_of(model.get_submodule(LAYER)).dtype == torch.bfloat16
    assert model(IDS).logits.dtype == torch.bfloat16


@pytest.mark.parametrize("method", ["gptq", "awq", "fp8", "mxfp4"])
def test_other_methods_are_refused(method: str, folder: Path) -> None:
    edit_config(folder, quantization_config={"quant_method": method, "bits": 4})
    with pytest.raises(ModelError, match=f"quantised with {method}"):
        load_folder(folder)


def test_packed_weights_without_a_word_in_the_config(tmp_path: Path) -> None:
    folder = save_packed(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    del config["quantization_config"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="no quantization_config"):
        load_folder(folder)


def test_the_fixture_is_what_it_says(tmp_path: Path) -> None:
    tensors = load_file(save_packed(tmp_path) / "model.safetensors")
    assert tensors[f"{LAYER}.weight"].dtype == torch.uint8
    assert sum(name.endswith("nested_absmax") for name in tensors) == 14
