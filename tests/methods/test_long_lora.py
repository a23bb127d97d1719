"""LongLoRA: who sees whom while training, everything in evaluation, positions that travel along."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.nn import functional

from qtune import methods
from qtune.data.batch import collate
from qtune.data.rows import EncodedRow
from qtune.errors import UsageError
from qtune.losses import CausalLoss
from qtune.methods.rope_scale import scaled_config
from qtune.methods.shifted_attention import in_groups
from qtune.recipe.methods import CombinationConfig, LongLoraConfig, PrefixConfig
from tests.methods.bases import attached, logits, randomise
from tests.tiny import tiny_llama

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


def base(**overrides: Any) -> Any:
    return tiny_llama(**overrides).requires_grad_(False)


def visible(length: int, group: int, shift: int, mask: Tensor | None = None) -> Tensor:
    """Which values each token's output depends on, [T, T]: value t is the t-th unit vector."""
    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(1, 1, length, 4, generator=generator) for _ in range(2))
    values = torch.eye(length)[None, None]
    query, key = (functional.pad(each, (0, length - 4)) for each in (query, key))
    return in_groups(query, key, values, group=group, shift=shift, mask=mask)[0, 0] > 0


def by_hand(length: int, group: int, shift: int) -> Tensor:
    """Token t sees s: not later, and in the same group."""
    place = torch.arange(length)
    number = (place - shift) // group  # the first group of shifted heads has number -1
    return (number[:, None] == number[None]) & (place[:, None] >= place[None])


@pytest.mark.parametrize(("length", "group"), [(32, 8), (30, 8), (7, 3), (9, 2), (5, 4)])
def test_the_visibility_table(length: int, group: int) -> None:
    for shift in (0, group // 2):
        assert torch.equal(visible(length, group, shift), by_hand(length, group, shift))


def test_the_table_of_the_paper() -> None:
    plain, shifted = visible(32, 8, 0), visible(32, 8, 4)
    assert shifted[2].nonzero().flatten().tolist() == [0, 1, 2]  # nothing wraps around
    assert plain[16].nonzero().flatten().tolist() == [16]
    assert shifted[16].nonzero().flatten().tolist() == [12, 13, 14, 15, 16]
    assert not plain.triu(1).any()
    assert not shifted.triu(1).any()


def test_documents_stay_apart_inside_groups() -> None:
    document = torch.tensor([0] * 5 + [1] * 11)
    own = (document[:, None] == document[None]) & torch.ones(16, 16).bool().tril()
    for shift in (0, 4):
        expected = by_hand(16, 8, shift) & own
        assert torch.equal(visible(16, 8, shift, own[None, None]), expected)
        closed = torch.zeros(1, 1, 16, 16).masked_fill(~own, torch.finfo(torch.float32).min)
        assert torch.equal(visible(16, 8, shift, closed), expected)


def test_a_step_of_training_attends_in_groups() -> None:
    """The model itself: a changed token moves the logits of its groups, layer after layer."""
    model = base(num_hidden_layers=1)
    attached(model, LongLoraConfig(rank=2, dropout=0.0, group_share=0.25))
    model.train()
    ids = torch.randint(3, 300, (1, 32), generator=torch.Generator().manual_seed(1))
    other = ids.clone()
    other[0, 3] = 7
    moved = (model(input_ids=ids).logits - model(input_ids=other).logits).abs().amax(-1)[0] > 1e-7
    # groups 0..7 of plain heads; 0..3 of shifted ones, which token 3 ends
    assert moved.nonzero().flatten().tolist() == [3, 4, 5, 6, 7]
    model.eval()
    moved = (model(input_ids=ids).logits - model(input_ids=other).logits).abs().amax(-1)[0] > 1e-7
    assert moved.nonzero().flatten().tolist() == list(range(3, 32))


@pytest.mark.parametrize("longest_row", [64, 96, 300])
def test_a_row_learns_the_same_alone_and_padded(longest_row: int) -> None:
    """Groups are of the run, not of what a row was put together with."""
    model = base()
    method = attached(model, LongLoraConfig(rank=2, dropout=0.0, group_share=0.25))
    method.will_train(10, longest_row=longest_row)
    randomise(method)
    model.train()
    draw = torch.Generator().manual_seed(1)
    drawn = [torch.randint(3, 300, (length,), generator=draw).tolist() for length in (64, 9, 21)]
    rows = [EncodedRow(ids, [-100, *ids[1:]], str(len(ids))) for ids in drawn]
    loss = CausalLoss(chunk_size=64)
    with torch.no_grad():
        together = loss.per_row(model, collate(rows, pad_id=2))[0]
        alone = [loss.per_row(model, collate([row], pad_id=2))[0][0] for row in rows]
        model.eval()
        whole = loss.per_row(model, collate(rows, pad_id=2))[0]
    assert torch.allclose(together, torch.stack(alone), rtol=1e-5)
    assert abs(together[0] - whole[0]) > 1e-3, "in groups"


def test_evaluation_is_full_attention_exactly() -> None:
    model = base()
    plain = logits(model)
    attached(model, LongLoraConfig(rank=2, dropout=0.0))
    assert torch.equal(logits(model), plain)


def test_a_group_as_long_as_the_row_is_full_attention() -> None:
    model = base()
    ids = torch.randint(3, 300, (2, 16), generator=torch.Generator().manual_seed(1))
    model.train()
    plain = model(input_ids=ids).logits
    attached(model, LongLoraConfig(rank=2, dropout=0.0, group_share=1.0))
    assert torch.equal(model(input_ids=ids).logits, plain)


def test_norms_and_embeddings_learn() -> None:
    method = attached(base(), LongLoraConfig(rank=2, target_modules=("q_proj",)))
    whole = {name for name in method.parameters() if ".lora_" not in name}
    assert len(whole) == 2 * 2 + 1 + 1
    none = LongLoraConfig(rank=2, train_norms=False, train_embeddings=False)
    assert all(".lora_" in name for name in attached(base(), none).parameters())


def test_positions_are_those_of_transformers() -> None:
    model = base()
    attached(model, LongLoraConfig(rank=2, rope_factor=4.0))
    config = json.loads(base().config.to_json_string())
    theirs = base(rope_parameters=scaled_config(config, 4.0)["rope_parameters"])
    assert torch.equal(logits(model), logits(theirs))


def test_other_positions_are_refused() -> None:
    rope = {"rope_type": "yarn", "factor": 2.0, "rope_theta": 10000.0}
    with pytest.raises(UsageError, match="cannot be interpolated"):
        attached(base(rope_parameters=rope), LongLoraConfig(rank=2, rope_factor=2.0))


def test_the_factor_travels_with_the_adapter(tmp_path: Path) -> None:
    model = base()
    method = attached(model, LongLoraConfig(rank=2, dropout=0.0, rope_factor=2.0))
    randomise(method)
    methods.save(tmp_path / "a", method, base_model="tiny", base_fingerprint="0123")
    again = base()
    found = methods.read(tmp_path / "a")
    assert found.config.name == "long_lora"
    found.attach(again, base_fingerprint=None)
    assert torch.equal(logits(again), logits(model))
    config = {"rope_scaling": None, "max_position_embeddings": 64}
    assert found.merged_config(config)["max_position_embeddings"] == 128


def test_peft_loads_the_file(tmp_path: Path) -> None:
    from peft import PeftModel

    model = base()
    method = attached(model, LongLoraConfig(rank=2, alpha=4.0, dropout=0.0))
    randomise(method)
    methods.save(tmp_path / "a", method, base_model="tiny", base_fingerprint="0123")
    theirs = PeftModel.from_pretrained(base(), tmp_path / "a")
    assert torch.allclose(logits(theirs), logits(model), atol=1e-5)


def test_other_attentions_are_refused() -> None:
    with pytest.raises(UsageError, match="works with sdpa, not eager"):
        attached(base(attn_implementation="eager"), LongLoraConfig(rank=2))
    from qtune import plan
    from qtune.plan.adapters import trainable_tensors

    both = CombinationConfig(parts=(LongLoraConfig(), PrefixConfig()))
    with pytest.raises(UsageError, match="changes the attention"):
        trainable_tensors(both, plan.shape_of(json.loads(base().config.to_json_string())))


def test_it_is_a_part_of_a_combination() -> None:
    from qtune.recipe.methods import BitfitConfig

    model = base()
    plain = logits(model)
    long = LongLoraConfig(rank=2, dropout=0.0, group_share=0.5, rope_factor=2.0)
    method = attached(model, CombinationConfig(parts=(long, BitfitConfig())))
    assert model.config._attn_implementation == "qtune_shifted"
    assert not torch.equal(logits(model), plain)
    with method.disabled():
        assert torch.equal(logits(model), plain)
    method.detach()
    assert torch.equal(logits(model), plain)
