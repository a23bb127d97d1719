"""The loss against the models' own, family by family."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    Gemma2Config,
    GPT2Config,
    GraniteConfig,
    LlamaConfig,
    PretrainedConfig,
    Qwen2Config,
)

from qtune.data.batch import learnt_places
from qtune.errors import ModelError
from qtune.losses import CausalLoss, check_head
from tests.losses.largest import Largest
from tests.tiny import tiny_llama

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": 96,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
FAMILIES: dict[str, PretrainedConfig] = {
    "llama": LlamaConfig(**SIZES),
    "qwen2 tied": Qwen2Config(**SIZES, tie_word_embeddings=True),
    "gemma2 capped": Gemma2Config(**SIZES, final_logit_softcapping=2.0),
    "cohere scaled": CohereConfig(**SIZES, logit_scale=0.25),
    "granite divided": GraniteConfig(**SIZES, logits_scaling=3.0),
    "gpt2": GPT2Config(n_embd=32, n_layer=1, n_head=4, vocab_size=96, n_positions=64),
}


@dataclass
class Rows:
    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    labels: torch.Tensor

    @property
    def learnt(self) -> torch.Tensor:
        return learnt_places(self.labels)

    def inputs(self) -> dict[str, torch.Tensor]:
        return {"input_ids": self.input_ids, "attention_mask": self.attention_mask}


def _rows(vocabulary: int) -> Rows:
    generator = torch.Generator().manual_seed(1)
    input_ids = torch.randint(1, vocabulary, (3, 12), generator=generator)
    mask = torch.ones_like(input_ids)
    labels = input_ids.clone()
    for row, (prompt, length) in enumerate([(4, 12), (2, 9), (5, 6)]):
        mask[row, length:] = 0
        labels[row, :prompt] = -100
        labels[row, length:] = -100
    return Rows(input_ids, mask, labels)


def _model(config: PretrainedConfig) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()


@pytest.mark.parametrize("family", FAMILIES)
def test_mean_is_the_models_own_loss(family: str) -> None:
    model = _model(FAMILIES[family])
    rows = _rows(96)
    output = CausalLoss(chunk_size=5)(model, rows)
    own = model(**vars(rows)).loss
    assert output.count == 8 + 7 + 1
    torch.testing.assert_close(output.sum / output.count, own, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_head_is_proven_on_the_model(family: str) -> None:
    check_head(_model(FAMILIES[family]), torch.arange(16))


def test_a_family_with_another_head_is_refused() -> None:
    model = tiny_llama()
    hook = model.register_forward_hook(_double_logits)
    with pytest.raises(ModelError, match="differ by"):
        check_head(model, torch.arange(16))
    hook.remove()


def _double_logits(_: Any, __: Any, output: Any) -> Any:
    output.logits = output.logits * 2
    return output


def test_rows_add_up_to_the_sum() -> None:
    model = tiny_llama().eval()
    rows = _rows(96)
    loss = CausalLoss(chunk_size=5)
    with torch.no_grad():
        sums, counts = loss.per_row(model, rows)
        whole = loss(model, rows)
    assert counts.tolist() == [8, 7, 1]
    torch.testing.assert_close(sums.sum(), whole.sum)
    alone = Rows(rows.input_ids[1:2, :9], rows.attention_mask[1:2, :9], rows.labels[1:2, :9])
    with torch.no_grad():
        torch.testing.assert_close(sums[1], loss(model, alone).sum, rtol=1e-5, atol=1e-5)


def test_nothing_of_all_tokens_and_the_vocabulary_is_ever_made() -> None:
    config = LlamaConfig(**SIZES | {"vocab_size": 4096})
    model = _model(config).requires_grad_(requires_grad=False)
    model.model.norm.weight.requires_grad_()
    rows = _rows(96)
    with Largest(model) as mode:
        CausalLoss(chunk_size=4)(model, rows).sum.backward()
    assert mode.elements == 4 * 4096  # the logits of a chunk; of all learnt tokens it were 16 rows
    assert model.model.norm.weight.grad.any()
    with Largest(model) as mode:
        model(**vars(rows))
    assert mode.elements == rows.labels.numel() * 4096


def test_masked_tokens_have_no_part_in_the_loss() -> None:
    model = tiny_llama().eval()
    rows = _rows(96)
    changed = rows.input_ids.clone()
    changed[rows.attention_mask == 0] = 7
    loss = CausalLoss(chunk_size=64)
    with torch.no_grad():
        before = loss(model, rows).sum
        after = loss(model, Rows(changed, rows.attention_mask, rows.labels)).sum
    assert before == after
