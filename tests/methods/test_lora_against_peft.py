"""PEFT as the oracle: one adapter file, two programs, the same logits and gradients."""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING, Any

import peft
import pytest
import torch

from qtune.methods import read, save
from qtune.recipe.methods import BitfitConfig, LoraConfig, PromptConfig
from tests.methods.bases import CASES, attached, batch, load, logits, randomise

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn


# PEFT's own: deprecated names of transformers, vocabulary checks, merging hints.
pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
CLOSE = {"rtol": 1e-4, "atol": 2e-6}
LORAS = [case for case, config in CASES.items() if isinstance(config, LoraConfig)]


def oracle_base(folder: Path) -> Any:
    """An NF4 base that PEFT takes for one that transformers loaded."""
    model = load(folder, "nf4").model
    model.is_loaded_in_4bit = True
    return model


def gradients(model: nn.Module, names: dict[str, str] | None = None) -> dict[str, Tensor]:
    """Gradients of the batch's loss in eval mode (no dropout), by name in the adapter file."""
    model.eval()
    model.zero_grad()
    model(**batch()).loss.backward()
    found = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None
            found[name if names is None else names[name]] = parameter.grad.clone()
    return found


def peft_names(model: nn.Module) -> dict[str, str]:
    """PEFT's parameter names in the model -> in the file."""
    found = {}
    for name, _ in model.named_parameters():
        short = name.replace(".modules_to_save.default", "").replace(".default", "")
        found[name] = short.replace("lora_magnitude_vector.weight", "lora_magnitude_vector")
    return found


def our_gradients(model: nn.Module, method: Any) -> dict[str, Tensor]:
    names = {id(parameter): name for name, parameter in method.parameters().items()}
    shown = {name: names.get(id(tensor), name) for name, tensor in model.named_parameters()}
    return gradients(model, shown)


def assert_equal_gradients(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert set(ours) == set(theirs)
    for name, gradient in ours.items():
        scale = theirs[name].abs().max().item()
        assert torch.allclose(gradient, theirs[name], rtol=1e-4, atol=2e-5 * scale + 1e-9), name


@pytest.mark.parametrize("case", [*LORAS, "bitfit"])
def test_peft_reads_our_file(case: str, tiny_folder: Path, tmp_path: Path) -> None:
    ours = load(tiny_folder, "nf4").model
    method = attached(ours, CASES[case])
    randomise(method)
    save(tmp_path / "a", method, base_model="tiny", base_fingerprint="0123")
    theirs = peft.PeftModel.from_pretrained(
        oracle_base(tiny_folder), tmp_path / "a", is_trainable=True
    )
    assert torch.allclose(logits(ours), logits(theirs), **CLOSE)
    assert_equal_gradients(our_gradients(ours, method), gradients(theirs, peft_names(theirs)))


THEIR_CONFIGS: dict[str, Any] = {
    "lora": {"target_modules": "all-linear"},
    "suffixes": {"target_modules": ["q_proj", "down_proj"], "exclude_modules": ["q_proj"]},
    "regex": {"target_modules": r"model\.layers\.1\..*_proj"},
    "rslora": {"target_modules": "all-linear", "use_rslora": True},
    "dora": {"target_modules": ["q_proj", "o_proj", "up_proj"], "use_dora": True},
    "patterns": {
        "target_modules": ["q_proj", "v_proj", "gate_proj"],
        "rank_pattern": {"gate_proj": 2, r"^model\.layers\.0\.self_attn\.q_proj": 7},
        "alpha_pattern": {r"layers\.1\..*_proj": 32},
    },
    # "norm" means every module whose name ends so: the layer norms too.
    "saved": {"target_modules": ["v_proj"], "modules_to_save": ["lm_head", "norm"]},
    "layers": {"target_modules": ["k_proj", "up_proj"], "layers_to_transform": 1},
}


@pytest.mark.parametrize("case", THEIR_CONFIGS)
def test_we_read_pefts_file(case: str, tiny_folder: Path, tmp_path: Path) -> None:
    config = peft.LoraConfig(
        **{"r": 4, "lora_alpha": 8, "task_type": "CAUSAL_LM", **THEIR_CONFIGS[case]}
    )
    theirs = peft.get_peft_model(oracle_base(tiny_folder), config)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    theirs.save_pretrained(tmp_path / "a", save_embedding_layers=False)
    ours = load(tiny_folder, "nf4").model
    method = read(tmp_path / "a").attach(ours, base_fingerprint="whatever it is")
    assert torch.allclose(logits(ours), logits(theirs), **CLOSE)
    assert_equal_gradients(our_gradients(ours, method), gradients(theirs, peft_names(theirs)))
    # and out again, for PEFT
    save(tmp_path / "b", method, base_model="tiny", base_fingerprint="0123")
    again = peft.PeftModel.from_pretrained(oracle_base(tiny_folder), tmp_path / "b")
    assert torch.allclose(logits(again), logits(theirs), **CLOSE)


def test_twenty_steps_of_training_agree(tiny_folder: Path, tmp_path: Path) -> None:
    config = LoraConfig(rank=4, alpha=8.0, dropout=0.0)
    ours = load(tiny_folder, "nf4").model
    method = attached(ours, config)
    save(tmp_path / "a", method, base_model="tiny", base_fingerprint="0123")
    theirs = peft.PeftModel.from_pretrained(
        oracle_base(tiny_folder), tmp_path / "a", is_trainable=True
    )
    curves = []
    for model in (ours, theirs):
        trainable = [tensor for tensor in model.parameters() if tensor.requires_grad]
        optimizer = torch.optim.AdamW(trainable, lr=1e-2, weight_decay=0.0)
        losses = []
        for _ in range(20):
            loss = model(**batch()).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        curves.append(losses)
    assert curves[0][-1] < 0.85 * curves[0][0]
    assert curves[0] == pytest.approx(curves[1], abs=1e-4)


def test_our_files_need_no_excuse_in_peft(tiny_folder: Path, tmp_path: Path) -> None:
    for case in ("patterns", "bitfit", "prompt"):
        model = load(tiny_folder, "nf4").model
        save(tmp_path / case, attached(model, CASES[case]), base_model="t", base_fingerprint="0")
        config = json.loads((tmp_path / case / "adapter_config.json").read_text())
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            known = peft.PeftConfig.from_pretrained(tmp_path / case).to_dict()
        assert set(config) <= set(known)


def test_delta_biases_are_beft(tiny_folder: Path, tmp_path: Path) -> None:
    theirs = peft.get_peft_model(
        load(tiny_folder, "fp32").model,
        peft.BeftConfig(target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM"),
    )
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape))
    theirs.save_pretrained(tmp_path / "a")
    file = read(tmp_path / "a")
    assert file.config == BitfitConfig(target_modules=("down_proj", "q_proj"))
    ours = load(tiny_folder, "fp32").model
    file.attach(ours, base_fingerprint=None)
    assert torch.allclose(logits(ours), logits(theirs), **CLOSE)


def test_prompts_agree_both_ways(tiny_folder: Path, tmp_path: Path) -> None:
    ours = load(tiny_folder, "nf4").model
    method = attached(ours, PromptConfig(num_virtual_tokens=6))
    save(tmp_path / "a", method, base_model="tiny", base_fingerprint="0123")
    theirs = peft.PeftModel.from_pretrained(oracle_base(tiny_folder), tmp_path / "a")
    assert torch.allclose(logits(ours), peft_prompt_logits(theirs, 6), **CLOSE)

    randomise(method)
    theirs.prompt_encoder.default.embedding.weight.data.copy_(*method.parameters().values())
    theirs.save_pretrained(tmp_path / "b")
    file = read(tmp_path / "b")
    assert file.config == PromptConfig(num_virtual_tokens=6)
    fresh = load(tiny_folder, "nf4").model
    file.attach(fresh, base_fingerprint=None)
    assert torch.allclose(logits(fresh), peft_prompt_logits(theirs, 6), **CLOSE)


def peft_prompt_logits(model: Any, count: int) -> Tensor:
    """PEFT leaves the prompt's positions in the logits."""
    data = batch()
    model.eval()
    with torch.no_grad():
        out = model(input_ids=data["input_ids"], attention_mask=data["attention_mask"]).logits
    found: Tensor = out[:, count:][data["attention_mask"] == 1]
    return found
