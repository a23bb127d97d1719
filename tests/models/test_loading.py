"""The loader against transformers' own, family by family and width by width."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig

from qtune.errors import ModelError, UsageError
from qtune.models import load
from qtune.ops.linears import linear_modules
from qtune.ops.nf4 import bits_of, weight_of
from qtune.recipe.inputs import ModelSection, QuantizationSection
from tests import tiny
from tests.models.workshop import CPU, edit_config, edit_tensors, load_folder, logits
from tests.round_trip import round_trip
from tests.tiny import save_tiny, tiny_llama

if TYPE_CHECKING:
    from pathlib import Path

SIZES = tiny.SIZES | {"pad_token_id": 2, "bos_token_id": 0, "eos_token_id": 1}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 10000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        }
    },
    "qwen2": {},
    "qwen3": {"head_dim": 16, "tie_word_embeddings": True},
    "mistral": {"sliding_window": 8},
    "gemma2": {"head_dim": 16, "query_pre_attn_scalar": 16},
    "gemma3_text": {"head_dim": 16, "query_pre_attn_scalar": 16},
    "phi3": {},
    "gpt2": {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 128, "n_inner": 128},
    "gpt_neox": {},
    "opt": {"word_embed_proj_dim": 64, "ffn_dim": 128},
    "falcon": {"ffn_hidden_size": 128, "alibi": False},
    "bloom": {"n_layer": 2, "n_head": 4},
}


def save_family(folder: Path, family: str, **more: Any) -> Path:
    torch.manual_seed(1)
    config = AutoConfig.for_model(family, **{**SIZES, **FAMILIES.get(family, {}), **more})
    AutoModelForCausalLM.from_config(config).save_pretrained(folder, max_shard_size="120KB")
    return folder


def reference(folder: Path, **more: Any) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **more)


def bnb_config(**more: Any) -> BitsAndBytesConfig:
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
        **more,
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_and_buffers_are_those_of_transformers(family: str, tmp_path: Path) -> None:
    folder = save_family(tmp_path, family)
    base, other = load_folder(folder, bits=16), reference(folder)
    assert torch.equal(logits(base.model), logits(other))
    buffers = dict(other.named_buffers())
    for name, buffer in base.model.named_buffers():
        assert torch.equal(buffer, buffers[name]), name


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2", "opt"])
def test_nf4_is_that_of_transformers(family: str, tmp_path: Path) -> None:
    folder = save_family(tmp_path, family)
    other = reference(folder, quantization_config=bnb_config())
    for module in other.modules():
        if bits_of(module) == 4:
            module.support_avx512bf16_for_cpu = False
    base = load_folder(folder)
    assert torch.equal(logits(base.model), logits(other))


@pytest.mark.parametrize(
    ("quantization", "bits"),
    [
        ({}, 4),
        ({"quant_type": "fp4"}, 4),
        ({"double_quant": False}, 4),
        ({"bits": 8}, 8),
        ({"bits": 16}, 16),
    ],
)
@pytest.mark.parametrize("compute_dtype", ["float32", "bfloat16"])
def test_each_layer_holds_the_round_trip_of_its_weight(
    quantization: dict[str, Any], bits: int, compute_dtype: str, whole: Path
) -> None:
    base = load_folder(whole, **quantization, compute_dtype=compute_dtype)
    original = dict(reference(whole).named_parameters())
    section, dtype = base.quantization, getattr(torch, compute_dtype)
    for name, module in linear_modules(base.model).items():
        assert bits_of(module) == bits
        wanted = round_trip(
            original[f"{name}.weight"],
            bits=bits,
            quant_type=section.quant_type,
            double_quant=section.double_quant,
            compute_dtype=dtype,
        )
        tolerance = 0.005 if bits == 8 and dtype == torch.bfloat16 else 0.0
        assert torch.allclose(weight_of(module).float(), wanted, rtol=tolerance, atol=0.0), name
    for name, parameter in base.model.named_parameters():
        assert not parameter.requires_grad
        if "norm" in name or "embed" in name or "lm_head" in name:
            assert parameter.dtype == dtype
            assert torch.equal(parameter, original[name].to(dtype))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("bits", [4, 16])
def test_heads_are_tied_or_not_as_the_config_says(tied: bool, bits: int, tmp_path: Path) -> None:
    save_tiny(tmp_path, tiny_llama(tie_word_embeddings=tied))
    model = load_folder(tmp_path, bits=bits).model
    assert (model.lm_head.weight is model.model.embed_tokens.weight) is tied
    assert type(model.lm_head) is nn.Linear


def test_a_tied_head_may_be_stored_twice_or_only_as_head(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path, tiny_llama(tie_word_embeddings=True))
    wanted = logits(reference(folder))

    def twice(tensors: dict[str, torch.Tensor]) -> None:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()

    assert torch.equal(logits(load_folder(edit_tensors(folder, twice), bits=16).model), wanted)
    edit_tensors(folder, lambda tensors: tensors.pop("model.embed_tokens.weight"))
    model = load_folder(folder, bits=16).model
    assert torch.equal(logits(model), wanted)
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_names_without_the_base_prefix_are_found(folder: Path) -> None:
    def strip(tensors: dict[str, torch.Tensor]) -> None:
        for name in list(tensors):
            tensors[name.removeprefix("model.")] = tensors.pop(name)

    wanted = logits(reference(folder))
    assert torch.equal(logits(load_folder(edit_tensors(folder, strip), bits=16).model), wanted)


def test_buffers_that_older_checkpoints_saved_are_passed_over(folder: Path) -> None:
    def older(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(8)

    wanted = logits(reference(folder))
    assert torch.equal(logits(load_folder(edit_tensors(folder, older), bits=16).model), wanted)


def test_mixture_of_experts_goes_through_transformers_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
    folder = save_family(tmp_path, "qwen3_moe", **experts)
    with caplog.at_level(logging.WARNING, logger="qtune"):
        base = load_folder(folder)
    assert "transformers loads it" in caplog.text
    other = reference(folder, quantization_config=bnb_config())
    for module in other.modules():
        if bits_of(module) == 4:
            module.support_avx512bf16_for_cpu = False
    assert torch.equal(logits(base.model), logits(other))
    layer = base.model.model.layers[0].self_attn.q_proj
    assert (bits_of(layer), layer.support_avx512bf16_for_cpu) == (4, False)
    assert base.inventory.row("4-bit").tensors == 8
    assert not any(parameter.requires_grad for parameter in base.model.parameters())


def test_an_expert_that_is_missing_is_named(tmp_path: Path) -> None:
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
    folder = save_family(tmp_path, "qwen3_moe", **experts, num_hidden_layers=1)
    if not (folder / "model.safetensors").exists():
        AutoModelForCausalLM.from_pretrained(folder).save_pretrained(folder)
        for path in folder.glob("model-*"):
            path.unlink()
        (folder / "model.safetensors.index.json").unlink()
    edit_tensors(folder, lambda tensors: tensors.pop("model.norm.weight"))
    with pytest.raises(ModelError, match=r"model\.norm\.weight: missing"):
        load_folder(folder)


def test_conv1d_stays_in_16_bit_and_the_log_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = save_family(tmp_path, "gpt2")
    with caplog.at_level(logging.WARNING, logger="qtune"):
        base = load_folder(folder)
    assert "no layer of this model can be quantised" in caplog.text
    assert base.inventory.row("4-bit").tensors == 0


@pytest.mark.parametrize("skip", ["q_proj", "model.layers.1.mlp.up_proj", "mlp.gate_proj"])
def test_the_skip_list_adds_to_the_head(skip: str, whole: Path) -> None:
    model = load_folder(whole, skip_modules=[skip]).model
    for name, module in linear_modules(model).items():
        left = name == skip or name.endswith(f".{skip}")
        assert bits_of(module) == (16 if left else 4), name
    assert type(model.lm_head) is nn.Linear


@pytest.mark.parametrize("skip", ["nope", "proj", "lm_head", "layers", ""])
def test_an_unknown_skip_name_is_an_error_that_lists_what_exists(skip: str, whole: Path) -> None:
    with pytest.raises(UsageError, match="no linear module is named") as caught:
        load_folder(whole, skip_modules=[skip])
    assert caught.value.faults[0].place == "quantization.skip_modules"
    assert "proj" in caught.value.faults[0].hint


def test_progress_counts_every_tensor_once(whole: Path) -> None:
    seen: list[tuple[int, int]] = []
    load(
        ModelSection(name_or_path=str(whole)),
        QuantizationSection(),
        device=CPU,
        activations="none",
        on_progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(number, 21) for number in range(1, 22)]


def test_the_model_keeps_no_file_open(folder: Path) -> None:
    base = load_folder(folder, bits=16)
    before = logits(base.model)
    (folder / "model.safetensors").write_bytes(
        b"\0" * (folder / "model.safetensors").stat().st_size
    )
    assert torch.equal(logits(base.model), before)


def test_authors_generation_settings_come_along(folder: Path) -> None:
    model = tiny_llama()
    model.generation_config.eos_token_id = [1, 7]
    save_tiny(folder, model)
    assert load_folder(folder).model.generation_config.eos_token_id == [1, 7]
    (folder / "generation_config.json").write_text("{")
    with pytest.raises(ModelError, match="not readable"):
        load_folder(folder)


def test_an_attention_kernel_that_is_not_installed(folder: Path) -> None:
    section = ModelSection(name_or_path=str(folder), attn_implementation="flash_attention_2")
    with pytest.raises(UsageError) as caught:
        load(section, QuantizationSection(), device=CPU, activations="none")
    assert caught.value.faults[0].place == "model.attn_implementation"


def test_eight_bit_layers_pass_gradients_on_to_their_input(whole: Path) -> None:
    layer = load_folder(whole, bits=8).model.train().model.layers[0].mlp.up_proj
    x = torch.randn(2, 5, 64, requires_grad=True)
    layer(x).sum().backward()
    assert torch.allclose(x.grad[0, 0], weight_of(layer).sum(dim=0), atol=1e-4)


def test_a_config_of_another_shape_is_refused(folder: Path) -> None:
    edit_config(folder, intermediate_size=256)
    with pytest.raises(ModelError, match=r"mlp\.\w+_proj\.weight is \(\d+, \d+\), the model wants"):
        load_folder(folder)


@pytest.mark.gpu
@pytest.mark.parametrize("bits", [4, 8, 16])
def test_a_gpu_computes_what_a_cpu_does(bits: int, whole: Path) -> None:
    section = QuantizationSection(bits=bits, compute_dtype="float32")
    model = ModelSection(name_or_path=str(whole))
    there = load(model, section, device=torch.device("cuda"), activations="none").model
    assert all(tensor.is_cuda for tensor in (*there.parameters(), *there.buffers()))
    here = load_folder(whole, bits=bits).model
    for name, module in linear_modules(there).items():
        wanted = weight_of(here.get_submodule(name))
        assert torch.allclose(weight_of(module).cpu(), wanted, atol=2e-4), name
