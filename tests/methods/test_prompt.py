"""The soft prompt is felt by attention and seen by nobody."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, MistralConfig, MistralForCausalLM

from qtune.errors import UsageError
from qtune.methods.base import Method
from qtune.recipe.methods import PromptConfig
from tests.methods.bases import attached, batch
from tests.tiny import tiny_llama, tiny_tokenizer

COUNT = 5


def prompted(model: Any = None) -> tuple[Any, Method]:
    model = model or tiny_llama()
    model.requires_grad_(False).eval()
    return model, attached(model, PromptConfig(num_virtual_tokens=COUNT))


def by_hand(model: Any, method: Method, ids: list[int]) -> Tensor:
    """Logits of one row with the prompt put before it explicitly; the last len(ids) positions."""
    with torch.no_grad(), method.disabled():
        (prompt,) = method.parameters().values()
        embeddings = model.get_input_embeddings()(torch.tensor([ids]))
        whole = torch.cat([prompt.unsqueeze(0), embeddings], dim=1)
        out: Tensor = model(inputs_embeds=whole).logits[0, COUNT:]
    return out


def greedy_by_hand(model: Any, method: Method, ids: list[int], count: int) -> list[int]:
    ids = list(ids)
    for _ in range(count):
        ids.append(int(by_hand(model, method, ids)[-1].argmax()))
    return ids[-count:]


def gpt2() -> Any:
    torch.manual_seed(0)
    return GPT2LMHeadModel(
        GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=320, bos_token_id=0, eos_token_id=1)
    )


def windowed() -> Any:
    """A Mistral that sees eight places back: padding between prompt and row would hide it."""
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    torch.manual_seed(0)
    config = MistralConfig(**sizes, **heads, vocab_size=320, sliding_window=8, pad_token_id=2)
    return MistralForCausalLM(config)


@pytest.mark.parametrize("build", [tiny_llama, gpt2, windowed])
def test_right_padding(build: Any) -> None:
    model, method = prompted(build())
    data = batch()
    with torch.no_grad():
        out = model(input_ids=data["input_ids"], attention_mask=data["attention_mask"]).logits
    for row, length in enumerate((12, 9, 5)):
        ids = data["input_ids"][row, :length].tolist()
        assert torch.allclose(out[row, :length], by_hand(model, method, ids), atol=1e-5)


@pytest.mark.parametrize("build", [tiny_llama, windowed])
@pytest.mark.parametrize("positions", ["given", "left to the model"])
def test_left_padding(positions: str, build: Any) -> None:
    model, method = prompted(build())
    rows = [[5, 6, 7, 8, 9, 10, 11], [12, 13, 14]]
    ids = torch.tensor([rows[0], [2, 2, 2, 2, *rows[1]]])
    mask = (ids != 2).long()
    extra = {"position_ids": (mask.cumsum(1) - 1).clamp_min(0)} if positions == "given" else {}
    with torch.no_grad():
        out = model(input_ids=ids, attention_mask=mask, **extra).logits
    for row, tokens in enumerate(rows):
        expected = by_hand(model, method, tokens)
        assert torch.allclose(out[row, -len(tokens) :], expected, atol=1e-5)


@pytest.mark.parametrize("build", [tiny_llama, gpt2, windowed])
def test_generate_with_a_cache_and_left_padding(build: Any) -> None:
    model, method = prompted(build())
    rows = [[5, 6, 7, 8, 9, 10, 11], [12, 13, 14]]
    ids = torch.tensor([rows[0], [2, 2, 2, 2, *rows[1]]])
    kept = {"attention_mask": (ids != 2).long(), "do_sample": False, "pad_token_id": 2}
    for use_cache in (True, False):
        out = model.generate(
            ids, max_new_tokens=6, min_new_tokens=6, eos_token_id=None, use_cache=use_cache, **kept
        )
        assert out.shape == (2, 13)
        for row, tokens in enumerate(rows):
            assert out[row, 7:].tolist() == greedy_by_hand(model, method, tokens, 6)


def test_steps_through_a_cache_equal_one_pass() -> None:
    model, method = prompted()
    ids = [5, 6, 7, 8, 9]
    expected = by_hand(model, method, ids)
    cache, found = None, []
    for start, end in ((0, 2), (2, 3), (3, 5)):
        with torch.no_grad():
            out = model(
                input_ids=torch.tensor([ids[start:end]]), past_key_values=cache, use_cache=True
            )
        cache = out.past_key_values
        found.append(out.logits[0])
    assert torch.allclose(torch.cat(found), expected, atol=1e-5)
    assert cache is not None
    assert cache.get_seq_length() == COUNT + len(ids)


def test_hidden_states_have_the_callers_length() -> None:
    model, _ = prompted()
    data = batch()
    out = model.model(
        input_ids=data["input_ids"],
        attention_mask=data["attention_mask"],
        output_hidden_states=True,
    )
    assert out.last_hidden_state.shape == (3, 12, 64)
    assert {state.shape for state in out.hidden_states} == {(3, 12, 64)}
    (first, *_) = model.model(data["input_ids"], return_dict=False)
    assert first.shape == (3, 12, 64)


def test_the_labels_need_no_padding() -> None:
    model, method = prompted()
    model(**batch()).loss.backward()
    (prompt,) = method.parameters().values()
    assert prompt.grad is not None
    assert (prompt.grad.abs().sum(dim=1) > 0).all()


def test_packed_rows_are_refused() -> None:
    model, _ = prompted()
    with pytest.raises(UsageError, match="packed"):
        model(input_ids=torch.tensor([[5, 6, 7, 8]]), position_ids=torch.tensor([[0, 1, 0, 1]]))


def test_a_prepared_mask_is_refused() -> None:
    model, _ = prompted()
    with pytest.raises(UsageError, match="plain attention mask"):
        model(input_ids=torch.tensor([[5, 6]]), attention_mask=torch.zeros(1, 1, 2, 2))


def test_it_starts_from_text_repeated_or_cut() -> None:
    tokenizer = tiny_tokenizer()
    for text, expected in (("ab", "ababa"), ("abcdefgh", "abcde")):
        model = tiny_llama().requires_grad_(False)
        from qtune.methods import create

        method = create(PromptConfig(num_virtual_tokens=COUNT, init_text=text), seed=0)
        method.attach(model, tokenizer=tokenizer)
        ids = torch.tensor(tokenizer(expected)["input_ids"])
        (prompt,) = method.parameters().values()
        assert torch.equal(prompt, model.get_input_embeddings()(ids))


def test_an_empty_text_is_an_error() -> None:
    from qtune.methods import create

    method = create(PromptConfig(init_text=""), seed=0)
    with pytest.raises(UsageError, match="no tokens"):
        method.attach(tiny_llama().requires_grad_(False), tokenizer=tiny_tokenizer())


def test_a_bf16_base_keeps_an_fp32_prompt() -> None:
    model, method = prompted(tiny_llama().bfloat16())
    (prompt,) = method.parameters().values()
    assert prompt.dtype == torch.float32
    assert model(**batch()).logits.dtype == torch.bfloat16
