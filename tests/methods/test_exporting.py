"""What is exported: the same bytes, a DyLoRA's first ranks, or a Delta-LoRA unrolled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from qtune.errors import UsageError
from qtune.methods import read, save
from qtune.methods.dylora import NestedLinear
from qtune.methods.exporting import cut, export
from qtune.recipe.methods import (
    BitfitConfig,
    CombinationConfig,
    DeltaLoraConfig,
    DyloraConfig,
    LoraConfig,
    MethodConfig,
    QuantumConfig,
)
from tests.methods.bases import attached, batch, logits, randomise, train
from tests.tiny import tiny_llama

if TYPE_CHECKING:
    from pathlib import Path

    from qtune.methods.base import Method

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")
SETTINGS: dict[str, Any] = {"rank": 6, "alpha": 12.0}


def saved(folder: Path, config: MethodConfig) -> tuple[Any, Method]:
    model = tiny_llama().requires_grad_(False)
    method = attached(model, config)
    if isinstance(config, DeltaLoraConfig):
        train(model, method, rate=1e-2, steps=6)
    else:
        randomise(method)
    save(folder, method, base_model="tiny", base_fingerprint="0123")
    return model, method


def loaded(folder: Path) -> torch.Tensor:
    model = tiny_llama().requires_grad_(False)
    read(folder).attach(model, base_fingerprint="0123")
    return logits(model)


def of_peft(folder: Path) -> torch.Tensor:
    peft = pytest.importorskip("peft")
    return logits(peft.PeftModel.from_pretrained(tiny_llama(), folder))


@pytest.mark.parametrize("use_rslora", [False, True])
@pytest.mark.parametrize("rank", [1, 3, 5, 6])
def test_a_rank_is_what_was_trained_as_that_rank(
    tmp_path: Path, rank: int, use_rslora: bool
) -> None:
    """Also where layers have ranks and alphas of their own; by qtune and by PEFT."""
    config = DyloraConfig(
        **SETTINGS,
        dropout=0.0,
        use_rslora=use_rslora,
        rank_pattern={"v_proj": 3},
        alpha_pattern={"up_proj": 5.0},
        modules_to_save=("model.norm",),
    )
    model, method = saved(tmp_path / "all", config)
    for adapter in method.adapters.values():
        if isinstance(adapter, NestedLinear):
            adapter.active = rank
    model.train()
    with torch.no_grad():
        trained = model(**batch()).logits[batch()["attention_mask"] == 1]
    (tmp_path / "cut").mkdir()
    written = export(read(tmp_path / "all"), tmp_path / "cut", rank=rank)
    found = read(tmp_path / "cut")
    assert found.config == written.config
    assert isinstance(found.config, LoraConfig)
    assert found.config.rank == rank
    shapes = {name: tensor.shape for name, tensor in found.tensors.items()}
    assert shapes["base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"] == (rank, 64)
    ours = min(rank, 3)
    assert shapes["base_model.model.model.layers.0.self_attn.v_proj.lora_B.weight"] == (32, ours)
    assert torch.allclose(loaded(tmp_path / "cut"), trained, atol=1e-5)
    assert torch.allclose(of_peft(tmp_path / "cut"), trained, atol=1e-5)


def test_a_delta_lora_is_a_plain_lora_to_everyone(tmp_path: Path) -> None:
    model, _ = saved(tmp_path / "own", DeltaLoraConfig(**SETTINGS, warmup_steps=2))
    (tmp_path / "plain").mkdir()
    written = export(read(tmp_path / "own"), tmp_path / "plain")
    assert written.raw["peft_type"] == "LORA"
    assert isinstance(written.config, LoraConfig)
    assert written.config.rank == 12
    assert torch.allclose(loaded(tmp_path / "plain"), logits(model), atol=1e-5)
    assert torch.allclose(of_peft(tmp_path / "plain"), logits(model), atol=1e-5)


@pytest.mark.parametrize(
    "config",
    [
        LoraConfig(**SETTINGS, use_dora=True),
        QuantumConfig(rank=2),
        CombinationConfig(parts=(LoraConfig(**SETTINGS), BitfitConfig())),
    ],
)
def test_all_others_are_copied_byte_for_byte(tmp_path: Path, config: MethodConfig) -> None:
    model, _ = saved(tmp_path / "own", config)
    (tmp_path / "own" / "state.json").write_text("{}")  # as in a checkpoint
    (tmp_path / "copy").mkdir()
    export(read(tmp_path / "own"), tmp_path / "copy")
    files = {path.relative_to(tmp_path / "own") for path in (tmp_path / "own").rglob("*.*")}
    copied = {path.relative_to(tmp_path / "copy") for path in (tmp_path / "copy").rglob("*.*")}
    assert files - copied == {(tmp_path / "own" / "state.json").relative_to(tmp_path / "own")}
    for path in copied:
        assert (tmp_path / "copy" / path).read_bytes() == (tmp_path / "own" / path).read_bytes()
    assert torch.equal(loaded(tmp_path / "copy"), logits(model))


def test_ranks_that_nobody_trained_are_refused(tmp_path: Path) -> None:
    saved(tmp_path / "dylora", DyloraConfig(**SETTINGS))
    for rank in (0, 7):
        with pytest.raises(UsageError, match=f"{rank} is no rank from 1 to 6"):
            cut(read(tmp_path / "dylora"), rank)
    saved(tmp_path / "lora", LoraConfig(**SETTINGS))
    with pytest.raises(UsageError, match="lora has no rank to choose"):
        cut(read(tmp_path / "lora"), 2)
