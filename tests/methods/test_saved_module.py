"""Whole modules trained beside their originals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from qtune.errors import UsageError
from qtune.methods.saved_module import SavedModule
from qtune.recipe.methods import LoraConfig
from tests.methods.bases import attached, load

if TYPE_CHECKING:
    from pathlib import Path


def saved(base: nn.Module) -> SavedModule:
    return SavedModule(base.bfloat16().requires_grad_(False), dtype=torch.float32, name="it")


def test_an_rmsnorm_starts_bit_for_bit() -> None:
    norm = LlamaRMSNorm(64)
    norm.weight.data.normal_(1.0, 0.2)
    module = saved(norm)
    x = torch.randn(5, 64, dtype=torch.bfloat16)
    assert torch.equal(module(x), norm(x))
    assert module.trained.weight.dtype == torch.float32


@pytest.mark.parametrize("base", [nn.Linear(64, 32), nn.LayerNorm(64)])
def test_torch_modules_compute_in_the_copys_dtype(base: nn.Module) -> None:
    module = saved(base)
    x = torch.randn(5, 64, dtype=torch.bfloat16)
    assert torch.equal(module(x), module.trained(x.float()).bfloat16())
    assert torch.allclose(module(x).float(), base(x).float(), atol=2e-2)


def test_an_embedding_answers_in_the_bases_dtype() -> None:
    module = saved(nn.Embedding(10, 8, padding_idx=1))
    ids = torch.tensor([3, 4])
    assert torch.equal(module(ids), module.base(ids))
    assert module.num_embeddings == 10
    assert module.padding_idx == 1


def test_weight_is_the_one_in_use() -> None:
    module = saved(nn.Linear(8, 4))
    assert module.weight is module.trained.weight
    assert module.bias is module.trained.bias
    module.enabled = False
    assert module.weight is module.base.weight
    with pytest.raises(AttributeError):
        _ = module.no_such_thing


def test_quantised_modules_are_refused(tiny_folder: Path) -> None:
    model = load(tiny_folder, "nf4").model
    config = LoraConfig(target_modules=("q_proj",), modules_to_save=("layers.0.mlp",))
    with pytest.raises(UsageError, match="quantised") as refused:
        attached(model, config)
    assert "skip_modules" in refused.value.faults[0].hint
    assert not any(tensor.requires_grad for tensor in model.parameters())


def test_a_tied_head_learns_apart_from_the_embedding() -> None:
    from transformers import LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        vocab_size=50,
        tie_word_embeddings=True,
    )
    model: Any = LlamaForCausalLM(config).requires_grad_(False)
    method = attached(model, LoraConfig(target_modules=("q_proj",), modules_to_save=("lm_head",)))
    head = model.get_output_embeddings()
    assert isinstance(head, SavedModule)
    assert head.trained.weight.data_ptr() != model.model.embed_tokens.weight.data_ptr()
    with method.disabled():
        assert head.weight is model.model.embed_tokens.weight
