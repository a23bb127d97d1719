"""The start-up proof that packed rows are computed as if each were alone."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GPT2Config,
    MambaConfig,
    PreTrainedConfig,
    Qwen3Config,
)

from qtune.errors import ModelError
from qtune.models import check_isolation
from qtune.models.isolation import measure, rounding
from tests.tiny import tiny_llama

SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 128,
}
CONFIGS: dict[str, PreTrainedConfig] = {
    "qwen3": Qwen3Config(**SIZES),
    "gemma2": Gemma2Config(**SIZES, sliding_window=8),
    "gpt2": GPT2Config(n_embd=64, n_layer=2, n_head=4, vocab_size=128),
}


def built(config: PreTrainedConfig, attention: str = "eager") -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, attn_implementation=attention)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", ["qwen3", "gpt2"])
def test_attention_keeps_rows_apart(family: str, attention: str) -> None:
    check_isolation(built(CONFIGS[family], attention), vocabulary=128)


def test_sliding_windows_keep_rows_apart() -> None:
    check_isolation(built(CONFIGS["gemma2"]), vocabulary=128)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_llama_in_both_compute_types(dtype: torch.dtype) -> None:
    model = tiny_llama().to(dtype)
    model.train()
    check_isolation(model, vocabulary=320)
    assert model.training


def test_a_mask_of_ones_lets_rows_see_each_other_and_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tiny_llama()
    forward = model.forward

    def with_mask(input_ids: torch.Tensor, **inputs: Any) -> Any:
        return forward(input_ids=input_ids, attention_mask=torch.ones_like(input_ids), **inputs)

    monkeypatch.setattr(model, "forward", with_mask)
    with pytest.raises(ModelError, match="packed rows see each other") as caught:
        check_isolation(model, vocabulary=320)
    assert "data.packing: false" in str(caught.value.faults[0])


def test_positions_that_do_not_begin_again_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = built(CONFIGS["gpt2"])
    forward = model.forward

    def shifted(input_ids: torch.Tensor, position_ids: torch.Tensor, **inputs: Any) -> Any:
        moved = torch.where(position_ids.diff(prepend=position_ids[:, :1]) < 0, 1, 0).cumsum(-1)
        return forward(input_ids=input_ids, position_ids=position_ids + 3 * moved, **inputs)

    monkeypatch.setattr(model, "forward", shifted)
    with pytest.raises(ModelError, match="other logits than alone"):
        check_isolation(model, vocabulary=128)


def masked(model: Any, blind: int = 0, *, first: bool = False) -> Any:
    """The model with masks of our own: rows told apart by their positions, its first `blind` tokens
    hidden from the rest of each row; with `first`, every sequence gets the first one's mask."""
    forward = model.forward

    def with_mask(input_ids: torch.Tensor, position_ids: torch.Tensor, **inputs: Any) -> Any:
        row_BT = (position_ids == 0).cumsum(-1)
        row_BT = row_BT[:1].expand_as(row_BT) if first else row_BT
        seen_BTT = (row_BT[:, :, None] == row_BT[:, None]).tril()
        late_BT = position_ids >= blind
        seen_BTT &= ~(late_BT[:, :, None] & ~late_BT[:, None])
        dtype = model.get_input_embeddings().weight.dtype
        mask = torch.zeros(seen_BTT.shape, dtype=dtype).masked_fill(~seen_BTT, -1e9)[:, None]
        return forward(
            input_ids=input_ids, position_ids=position_ids, attention_mask=mask, **inputs
        )

    model.forward = with_mask
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_mask_for_all_sequences_of_a_micro_batch_is_refused(dtype: torch.dtype) -> None:
    check_isolation(masked(tiny_llama().to(dtype)), vocabulary=320)
    with pytest.raises(ModelError, match="packed rows see each other"):
        check_isolation(masked(tiny_llama().to(dtype), first=True), vocabulary=320)


@pytest.mark.parametrize("family", ["qwen3", "gpt2"])
def test_in_bfloat16_a_row_that_does_not_see_its_own_first_token_is_refused(family: str) -> None:
    check_isolation(built(CONFIGS[family], "sdpa").to(torch.bfloat16), vocabulary=128)
    model = masked(built(CONFIGS[family], "sdpa").to(torch.bfloat16), blind=1)
    forward = model.forward

    def faulty_when_packed(position_ids: torch.Tensor, **inputs: Any) -> Any:
        alone = bool((position_ids.diff() == 1).all())
        run = type(model).forward if alone else forward
        own = (model,) if alone else ()
        return run(*own, position_ids=position_ids, **inputs)

    model.forward = faulty_when_packed
    # the fault is in the control too, which must not excuse it
    assert measure(model, vocabulary=128).control > rounding(model, 0.0)
    with pytest.raises(ModelError, match="other logits than alone"):
        check_isolation(model, vocabulary=128)


@pytest.mark.parametrize("family", ["qwen3", "gemma2", "gpt2"])
@pytest.mark.parametrize("layers", [2, 12])
def test_rounding_in_bfloat16_stays_below_its_bound(family: str, layers: int) -> None:
    config = copy.deepcopy(CONFIGS[family])
    config.num_hidden_layers = layers
    if hasattr(config, "layer_types"):
        config.layer_types = (list(config.layer_types) * layers)[:layers]
    model = built(config, "eager" if family == "gemma2" else "sdpa").to(torch.bfloat16)
    found = measure(model, vocabulary=128)
    assert found.error < rounding(model, 0.0)


def test_a_recurrent_model_is_refused() -> None:
    model = built(
        MambaConfig(hidden_size=32, state_size=4, num_hidden_layers=1, vocab_size=128), "eager"
    )

    def without_positions(input_ids: torch.Tensor, **inputs: Any) -> Any:
        inputs.pop("position_ids")
        return type(model).forward(model, input_ids=input_ids, **inputs)

    model.forward = without_positions
    with pytest.raises(ModelError, match="packed rows see each other"):
        check_isolation(model, vocabulary=128)
