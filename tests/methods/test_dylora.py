"""DyLoRA: one run, every rank; steps touch the ranks that were drawn and no others."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch

from qtune.errors import UsageError
from qtune.methods.base import Method
from qtune.methods.dylora import NestedLinear
from qtune.recipe.methods import DyloraConfig, LoraConfig, MethodConfig
from tests.methods.bases import attached, batch, logits, randomise, train
from tests.tiny import tiny_llama

RANK = 8
SETTINGS: dict[str, Any] = {"rank": RANK, "alpha": 16.0, "dropout": 0.0}


def learner() -> Any:
    """A base whose head is large enough to learn the batch by heart."""
    return tiny_llama(hidden_size=64, initializer_range=0.1).requires_grad_(False)


def learnt(config: MethodConfig, steps: int) -> tuple[Any, Method]:
    model = learner()
    method = attached(model, config)
    train(model, method, rate=3e-3, steps=steps)
    return model, method


def cut(method: Method, rank: int, **settings: Any) -> tuple[Any, Method]:
    """A plain LoRA of the first ranks, on a fresh base."""
    model = learner()
    plain = attached(model, LoraConfig(**{**SETTINGS, **settings, "rank": rank}))
    plain.load_adapter(
        {
            name: (tensor[:rank] if ".lora_A." in name else tensor[:, :rank]).contiguous()
            for name, tensor in method.adapter_state().items()
        }
    )
    return model, plain


def loss_at(method: Method, rank: int) -> float:
    model, _ = cut(method, rank)
    with torch.no_grad():
        return float(model(**batch()).loss)


def test_every_rank_is_of_use_where_a_cut_lora_is_not() -> None:
    _, nested = learnt(DyloraConfig(**SETTINGS), 100)
    _, plain = learnt(LoraConfig(**SETTINGS), 100)
    ours = [loss_at(nested, rank) for rank in range(1, RANK + 1)]
    theirs = [loss_at(plain, rank) for rank in range(1, RANK + 1)]
    assert all(later <= 1.1 * earlier for earlier, later in pairwise(ours))
    assert ours[RANK // 2 - 1] <= 2 * ours[-1]
    assert theirs[RANK // 2 - 1] > 2 * theirs[-1]


@pytest.mark.parametrize("use_rslora", [False, True])
@pytest.mark.parametrize("rank", [1, 3, 8])
def test_a_drawn_rank_is_the_lora_of_that_rank(rank: int, use_rslora: bool) -> None:
    model = learner()
    method = attached(model, DyloraConfig(**SETTINGS, use_rslora=use_rslora))
    randomise(method)
    for adapter in method.adapters.values():
        assert isinstance(adapter, NestedLinear)
        adapter.active = rank
    other, _ = cut(method, rank, use_rslora=use_rslora)
    model.train()
    other.train()
    assert torch.allclose(model(**batch()).logits, other(**batch()).logits, atol=1e-5)
    whole, _ = cut(method, RANK, use_rslora=use_rslora)
    assert torch.allclose(logits(model), logits(whole), atol=1e-5), "evaluation takes all ranks"


@pytest.mark.parametrize("freeze_lower", [False, True])
def test_a_step_moves_what_was_drawn_and_nothing_else(freeze_lower: bool) -> None:
    config = DyloraConfig(**SETTINGS, min_rank=2, freeze_lower=freeze_lower)
    model, method = learnt(config, 5)  # so that AdamW has momentum for every row
    randomise(method)
    before = method.adapter_state()
    model.train()
    optimizer = torch.optim.AdamW(method.param_groups(learning_rate=1e-2, weight_decay=0.1))
    drawn = set()
    for step in range(1, 9):
        method.before_step(step)
        model(**batch()).loss.backward()
        optimizer.step()
        method.after_step(step)
        optimizer.zero_grad()
        after = method.adapter_state()
        adapter = next(iter(method.adapters.values()))
        assert isinstance(adapter, NestedLinear)
        active = adapter.active
        drawn.add(active)
        for name, tensor in after.items():
            moved = (tensor != before[name]).any(dim=1 if ".lora_A." in name else 0)
            first = active - 1 if freeze_lower else 0
            assert moved.tolist() == [first <= row < active for row in range(RANK)]
        before = after
    assert len(drawn) > 3
    assert min(drawn) >= 2


def test_ranks_above_the_common_one_are_drawn_too() -> None:
    _, method = learnt(DyloraConfig(**SETTINGS, rank_pattern={"q_proj": 2 * RANK}), 30)
    ups = {name: up for name, up in method.parameters().items() if ".lora_B." in name}
    assert {len(up.T) for up in ups.values()} == {RANK, 2 * RANK}
    assert all(up.any(dim=0).all() for up in ups.values()), "each column has left its zero"


def test_the_draw_is_of_seed_and_step_alone() -> None:
    def drawn(seed: int, steps: list[int]) -> list[int]:
        model = tiny_llama().requires_grad_(False)
        method = attached(model, DyloraConfig(**SETTINGS), seed=seed)
        found = []
        for step in steps:
            torch.manual_seed(step + 17)
            method.before_step(step)
            found.append(next(iter(method.adapters.values())).active)  # type: ignore[attr-defined]
        return found

    straight = drawn(1, list(range(1, 21)))
    assert straight[10:] == drawn(1, list(range(11, 21)))
    assert straight != drawn(2, list(range(1, 21)))


def test_a_smallest_rank_above_the_rank_is_refused() -> None:
    with pytest.raises(UsageError, match=r"9 is above method\.rank, 8"):
        attached(tiny_llama().requires_grad_(False), DyloraConfig(**SETTINGS, min_rank=9))
