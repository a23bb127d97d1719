"""Edits of rows are the rows of the edit, and each tensor of an adapter is in exactly one."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import peft
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from qtune import methods
from tests.run.made_run import LORA, make_run

if TYPE_CHECKING:
    from pathlib import Path

    from qtune.methods.base import Edit

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
ROWS = 24


def same_by_rows(edit: Edit) -> None:
    assert edit.shape is not None
    assert edit.by_rows is not None
    base = torch.randn(edit.shape, generator=torch.Generator().manual_seed(3))
    given = base if edit.needs_base else None
    whole = edit.apply(given)
    for start in range(0, len(base), ROWS):
        stop = min(start + ROWS, len(base))
        part = edit.by_rows(base[start:stop] if edit.needs_base else None, start, stop)
        assert torch.allclose(part, whole[start:stop], atol=1e-6)


@pytest.mark.parametrize(
    "method",
    [
        LORA,
        LORA | {"use_dora": True},
        LORA | {"modules_to_save": ["lm_head", "embed_tokens"]},
        {"name": "adalora"},
        {"name": "rosa", "rank": 4, "density": 0.05},
        [LORA, {"name": "bitfit"}],
        {"name": "selective", "parts": ["norm"]},
    ],
    ids=["lora", "dora", "saved", "adalora", "rosa", "combination", "selective"],
)
def test_rows_of_each_method(tmp_path: Path, method: Any) -> None:
    adapter = methods.read(make_run(tmp_path, method=method) / "adapter")
    edits = {name: edit for name, edit in adapter.merge_edits().items() if not edit.may_create}
    assert edits
    for edit in edits.values():
        same_by_rows(edit)


@pytest.mark.parametrize("dora", [False, True])
def test_a_lora_on_conv1d_is_pefts(tmp_path: Path, dora: bool) -> None:
    torch.manual_seed(0)
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 2, "vocab_size": 96, "n_positions": 32}
    model = GPT2LMHeadModel(GPT2Config(**sizes))
    base = {name: value.detach().clone() for name, value in model.named_parameters()}
    config = peft.LoraConfig(
        r=4, target_modules=["c_attn", "c_fc"], fan_in_fan_out=True, use_dora=dora
    )
    attached = peft.get_peft_model(model, config)
    with torch.no_grad():
        for name, parameter in attached.named_parameters():
            if "lora_" in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    attached.save_pretrained(tmp_path / "adapter")
    adapter = methods.read(tmp_path / "adapter")
    edits = adapter.merge_edits()
    merged = dict(attached.merge_and_unload().named_parameters())
    assert len(edits) == 4
    assert len(adapter.tensors) == len(edits) * (3 if dora else 2)  # each in one, none left
    for name, edit in edits.items():
        assert edit.shape == base[name].shape
        assert torch.allclose(edit.apply(base[name]), merged[name], atol=1e-5), name
        assert not torch.equal(base[name], merged[name])
        if not dora:  # whose norms are those of whole columns there
            same_by_rows(edit)
    for name, value in base.items():
        assert name in edits or torch.equal(value, merged[name])


def test_every_tensor_of_a_lora_is_in_one_edit(tmp_path: Path) -> None:
    adapter = methods.read(make_run(tmp_path) / "adapter")
    edits = adapter.merge_edits()
    for name in adapter.tensors:
        changed = dict(adapter.tensors)
        changed[name] = torch.full_like(changed[name], math.pi)
        others = replace(adapter, tensors=changed).merge_edits()
        assert others.keys() == edits.keys()
        base = {key: torch.zeros(edit.shape or ()) for key, edit in edits.items()}
        moved = [
            key
            for key in edits
            if not torch.equal(edits[key].apply(base[key]), others[key].apply(base[key]))
        ]
        owner = name.removeprefix("base_model.model.").partition(".lora_")[0]
        assert moved == [f"{owner}.weight"]
