"""Strict names and shapes: nothing missing, nothing left over, all faults before any reading."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from qtune.errors import ModelError
from tests.models.workshop import edit_config, edit_tensors, load_folder
from tests.tiny import save_tiny, tiny_llama

if TYPE_CHECKING:
    from pathlib import Path

UP = "model.layers.1.mlp.up_proj.weight"


def test_a_missing_weight_is_an_error_and_no_random_start(folder: Path) -> None:
    edit_tensors(folder, lambda tensors: tensors.pop(UP))
    with pytest.raises(ModelError, match=f"missing in the checkpoint: {UP}"):
        load_folder(folder)


def test_a_misspelt_weight_is_told_with_the_nearest_name(folder: Path) -> None:
    def misspell(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.layers.1.mlp.upp_proj.weight"] = tensors.pop(UP)

    edit_tensors(folder, misspell)
    with pytest.raises(ModelError) as caught:
        load_folder(folder)
    missing, unknown = caught.value.faults
    assert UP in missing.message
    assert "did you mean model.layers.1.mlp.upp_proj.weight" in missing.hint
    assert "upp_proj" in unknown.message


def test_many_faults_stay_three_lines(folder: Path) -> None:
    edit_config(folder, num_hidden_layers=9)
    with pytest.raises(ModelError) as caught:
        load_folder(folder)
    assert "and 60 more" in str(caught.value)
    assert str(caught.value).count("\n") <= 2


def test_layers_beyond_the_config_are_left_over(folder: Path) -> None:
    edit_config(folder, num_hidden_layers=1)
    with pytest.raises(ModelError, match="in the checkpoint, but not in LlamaForCausalLM"):
        load_folder(folder)


@pytest.mark.parametrize("name", [UP, "model.norm.weight", "lm_head.weight"])
def test_a_wrong_shape_names_both(name: str, folder: Path) -> None:
    def cut(tensors: dict[str, torch.Tensor]) -> None:
        tensors[name] = tensors[name][:-32].clone()

    edit_tensors(folder, cut)
    with pytest.raises(ModelError, match=rf"{name} is \(.*\), the model wants \(.*\)"):
        load_folder(folder)


def test_a_transposed_weight_is_a_wrong_shape(folder: Path) -> None:
    def turn(tensors: dict[str, torch.Tensor]) -> None:
        tensors[UP] = tensors[UP].t().contiguous()

    edit_tensors(folder, turn)
    with pytest.raises(ModelError, match=r"is \(64, 128\), the model wants \(128, 64\)"):
        load_folder(folder)


def test_a_head_that_is_not_tied_must_be_there(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path, tiny_llama(tie_word_embeddings=False))
    edit_tensors(folder, lambda tensors: tensors.pop("lm_head.weight"))
    with pytest.raises(ModelError, match=r"missing in the checkpoint: lm_head\.weight"):
        load_folder(folder)


def test_weights_of_another_family(folder: Path) -> None:
    edit_config(folder, model_type="gpt_neox", architectures=["GPTNeoXForCausalLM"])
    with pytest.raises(ModelError, match="missing in the checkpoint"):
        load_folder(folder)
