"""Decoding in batches equals decoding alone, and both equal recomputing everything."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from qtune.evaluation.answers import Manner, Prompt, answer_all
from qtune.evaluation.decode import decode, evaluating, sampler, stop_ids, token_stream
from qtune.recipe.methods import MethodConfig, PrefixConfig, PromptConfig
from tests.methods.bases import attached
from tests.tiny import tiny_llama, tiny_tokenizer

PROMPTS = [[5], [7, 8, 9, 10, 11, 12, 13], [0, 50, 60], [200] * 19]
NEVER = frozenset([-1])


@pytest.fixture(scope="module")
def model() -> nn.Module:
    network = tiny_llama(seed=3, initializer_range=0.3)  # far from uniform, so no near-ties
    network.train()
    return network


def recompute(model: nn.Module, prompt: list[int], count: int) -> list[int]:
    """Greedy without cache, padding or batch."""
    ids = list(prompt)
    for _ in range(count):
        with torch.no_grad():
            logits: Tensor = model(input_ids=torch.tensor([ids])).logits
        ids.append(int(logits[0, -1].argmax()))
    return ids[len(prompt) :]


def test_batch_equals_single_equals_recomputed(model: nn.Module) -> None:
    batched = decode(model, PROMPTS, max_new_tokens=20, stop_ids=NEVER)
    for prompt, together in zip(PROMPTS, batched, strict=True):
        alone = decode(model, [prompt], max_new_tokens=20, stop_ids=NEVER)[0]
        assert together == alone
        assert alone.ids == recompute(model, prompt, 20)
        assert not alone.stopped
    assert len({tuple(one.ids) for one in batched}) > 1, "the prompts must matter"


def test_a_row_ends_at_its_own_stop_token(model: nn.Module) -> None:
    free = decode(model, PROMPTS, max_new_tokens=12, stop_ids=NEVER)
    end = free[1].ids[4]
    stopped = decode(model, PROMPTS, max_new_tokens=12, stop_ids=frozenset([end]))
    for before, after in zip(free, stopped, strict=True):
        if end in before.ids:
            assert after.ids == before.ids[: before.ids.index(end)]
            assert after.stopped
        else:
            assert after == before


@pytest.mark.parametrize(
    "config", [PromptConfig(num_virtual_tokens=20), PrefixConfig(num_virtual_tokens=20)]
)
def test_virtual_tokens_take_positions_of_a_table(config: MethodConfig) -> None:
    torch.manual_seed(0)
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64}
    network = GPT2LMHeadModel(
        GPT2Config(**sizes, vocab_size=320, bos_token_id=0, eos_token_id=1)
    ).requires_grad_(False)
    attached(network, config)
    full, short = decode(network, [[5] * 40, [7] * 4], max_new_tokens=50, stop_ids=NEVER)
    assert (len(full.ids), len(short.ids)) == (4, 40)


def test_the_stop_token_at_the_very_last_place_counts(model: nn.Module) -> None:
    free = decode(model, [PROMPTS[2]], max_new_tokens=6, stop_ids=NEVER)[0].ids
    first = free.index(free[5])
    result = decode(model, [PROMPTS[2]], max_new_tokens=first + 1, stop_ids=frozenset([free[5]]))
    assert result[0].stopped
    assert result[0].ids == free[:first]


def test_mode_and_gradients_come_back(model: nn.Module) -> None:
    model.train()
    decode(model, [[4, 5]], max_new_tokens=2, stop_ids=NEVER)
    assert model.training
    with evaluating(model):
        assert not model.training
        assert not torch.is_grad_enabled()
    assert model.training
    stream = token_stream(model, [[4, 5]])
    next(stream)
    assert torch.is_grad_enabled(), "a suspended stream must not switch gradients off"


def test_sampling_is_seeded_and_cold_sampling_is_greedy(model: nn.Module) -> None:
    def draw(temperature: float, seed: int) -> list[int]:
        choose = sampler(temperature=temperature, seed=seed)
        return decode(model, [[9, 4]], max_new_tokens=16, stop_ids=NEVER, choose=choose)[0].ids

    assert draw(1.0, 1) == draw(1.0, 1)
    assert draw(1.0, 1) != draw(1.0, 2)
    assert draw(1e-4, 1) == recompute(model, [9, 4], 16)


def test_sampling_follows_the_softmax() -> None:
    logits = torch.log(torch.tensor([[0.7, 0.2, 0.1]])).repeat(20_000, 1)
    drawn = sampler(temperature=1.0, seed=0)(logits)
    shares = torch.bincount(drawn, minlength=3) / len(drawn)
    assert shares.tolist() == pytest.approx([0.7, 0.2, 0.1], abs=0.015)
    hot = torch.bincount(sampler(temperature=2.0, seed=0)(logits), minlength=3) / len(drawn)
    roots = torch.tensor([0.7, 0.2, 0.1]).sqrt()
    assert hot.tolist() == pytest.approx((roots / roots.sum()).tolist(), abs=0.015)


def test_every_named_end_stops() -> None:
    network, tokenizer = tiny_llama(), tiny_tokenizer()
    network.generation_config.eos_token_id = [7, 9]
    assert stop_ids(network, tokenizer) == {1, 7, 9}
    network.generation_config.eos_token_id = None
    assert stop_ids(network, tokenizer) == {1}


def test_a_cache_of_fixed_size_changes_nothing(model: nn.Module) -> None:
    growing = decode(model, PROMPTS, max_new_tokens=20, stop_ids=NEVER)
    assert decode(model, PROMPTS, max_new_tokens=20, stop_ids=NEVER, cache="static") == growing


def test_a_quantised_cache_answers(model: nn.Module) -> None:
    pytest.importorskip("optimum.quanto", reason="needs optimum-quanto")
    found = decode(model, PROMPTS, max_new_tokens=40, stop_ids=NEVER, cache="quantized")
    assert [len(one.ids) for one in found] == [40] * len(PROMPTS)
    assert found == decode(model, PROMPTS, max_new_tokens=40, stop_ids=NEVER, cache="quantized")


@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_batched_logits_are_single_ones(model: nn.Module, cache: Any) -> None:
    def logits(prompts: list[list[int]]) -> Tensor:
        seen = []

        def choose(found: Tensor) -> Tensor:
            seen.append(found)
            return found.argmax(dim=-1)

        decode(model, prompts, max_new_tokens=6, stop_ids=NEVER, choose=choose, cache=cache)
        return torch.stack(seen, dim=1)

    together = logits(PROMPTS)
    for row, prompt in enumerate(PROMPTS):
        alone = logits([prompt])[0]
        assert (together[row] - alone).abs().max() / alone.abs().max() < 1e-5


def test_a_text_ends_an_answer(model: nn.Module) -> None:
    tokenizer = tiny_tokenizer()
    prompts = [Prompt("a:1", "", tuple(ids), ("x",)) for ids in PROMPTS]
    plain = Manner(max_new_tokens=20, batch_size=3)
    free = answer_all(model, tokenizer, prompts, plain)
    stop = free[0].text[4:6]
    found = answer_all(model, tokenizer, prompts, replace(plain, stop_texts=(stop,)))
    for before, after in zip(free, found, strict=True):
        at = before.text.find(stop)
        assert after.text == (before.text if at < 0 else before.text[:at])
        assert after.stopped == (at >= 0 or before.stopped)
