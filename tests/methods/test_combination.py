"""Several methods on one model: what stands over what, what folds, and what cannot be together."""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING, Any

import pytest
import torch

from qtune import methods, plan
from qtune.errors import ModelError, UsageError
from qtune.plan.adapters import trainable_tensors
from qtune.recipe.methods import (
    AdaloraConfig,
    BitfitConfig,
    BottleneckConfig,
    CombinationConfig,
    LoraConfig,
    PrefixConfig,
    PromptConfig,
    RosaConfig,
)
from tests.methods.bases import attached, batch, load, logits, randomise, train
from tests.tiny import tiny_llama

if TYPE_CHECKING:
    from pathlib import Path

LORA = LoraConfig(rank=4, alpha=8.0, dropout=0.0)


def base() -> Any:
    return tiny_llama().requires_grad_(False)


def combined(*parts: Any) -> CombinationConfig:
    return CombinationConfig(parts=parts)


def test_a_lora_and_biases_are_what_each_adds_alone() -> None:
    model = base()
    plain = model.model.layers[0].self_attn.q_proj
    x = torch.randn(3, 64, generator=torch.Generator().manual_seed(1))
    method = attached(model, combined(BitfitConfig(), LORA))
    randomise(method)
    tensors = method.adapter_state()
    q = "base_model.model.model.layers.0.self_attn.q_proj"
    bias = tensors[f"part-0/{q}.beft_bias"][0]
    down, up = (tensors[f"part-1/{q}.lora_{end}.weight"] for end in "AB")
    expected = x @ plain.weight.T + 2.0 * (x @ down.T) @ up.T + bias
    assert torch.allclose(model.model.layers[0].self_attn.q_proj(x), expected, atol=1e-5)


def test_each_part_starts_as_it_does_alone() -> None:
    alone = attached(base(), LORA, seed=3).adapter_state()
    method = attached(base(), combined(LORA, PrefixConfig(num_virtual_tokens=3)), seed=3)
    own = method.parts()["part-0"].adapter_state()
    assert own.keys() == alone.keys()
    assert all(torch.equal(own[name], alone[name]) for name in own)


def test_two_parts_of_a_kind_start_apart() -> None:
    one, two = attached(base(), combined(LORA, LORA)).parts().values()
    first, second = (next(iter(part.adapter_state().values())) for part in (one, two))
    assert not torch.equal(first, second)


def test_the_hooks_of_the_loop_reach_the_parts() -> None:
    model = base()
    config = combined(AdaloraConfig(rank=4, target_rank=2, dropout=0.0), BitfitConfig())
    method = attached(model, config)
    method.will_train(10, longest_row=64)
    assert method.extra_loss() is not None
    train(model, method, rate=1e-2, steps=3)
    state = method.state()
    assert state
    assert all(name.startswith("part-0/") for name in state)
    again = attached(base(), config)
    again.will_train(10, longest_row=64)
    again.load_adapter(method.adapter_state())
    again.load_state(state)
    assert all(torch.equal(again.state()[name], state[name]) for name in state)


def test_rosa_after_a_lora_chooses_its_places_and_takes_them_back() -> None:
    """Its layers' base is the stand-in of the part before it by then."""
    config = combined(LORA, RosaConfig(rank=4, dropout=0.0, density=0.03, warmup_steps=2))
    model, again = base(), base()
    method = attached(model, config)
    train(model, method, rate=1e-2, steps=4)
    state = method.adapter_state()
    values = [tensor for name, tensor in state.items() if name.endswith(".rosa_values")]
    assert values
    assert all(tensor.any() for tensor in values)
    attached(again, config).load_adapter(state)
    assert torch.equal(logits(again), logits(model))


def test_a_resumed_run_goes_on_exactly() -> None:
    config = combined(LORA, BitfitConfig(), PromptConfig(num_virtual_tokens=3))
    whole = base()
    train(whole, attached(whole, config), rate=1e-2, steps=4)
    model = base()
    method = attached(model, config)
    parts = []
    from qtune import optim

    optimizer = torch.optim.AdamW(method.param_groups(learning_rate=1e-2, weight_decay=0.0))
    for _ in range(2):
        model(**batch()).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    tensors, numbers = optim.state_of(optimizer, method.parameters())
    parts = method.adapter_state()
    model = base()
    method = attached(model, config, seed=9)
    method.load_adapter(parts)
    optimizer = torch.optim.AdamW(method.param_groups(learning_rate=1e-2, weight_decay=0.0))
    optim.load_state(optimizer, method.parameters(), tensors, numbers)
    for _ in range(2):
        model(**batch()).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert torch.equal(logits(model), logits(whole))


def test_each_part_has_files_that_peft_loads(tiny_folder: Path, tmp_path: Path) -> None:
    from peft import PeftModel

    method = attached(load(tiny_folder, "fp32").model, combined(LORA, BitfitConfig()))
    randomise(method)
    methods.save(tmp_path / "a", method, base_model="tiny", base_fingerprint="0123")
    written = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    assert written["parts"] == ["part-0", "part-1"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # transformers renames what PEFT asks
        theirs = PeftModel.from_pretrained(base(), tmp_path / "a" / "part-0")
    ours = attached(base(), LORA)
    ours.load_adapter(method.parts()["part-0"].adapter_state())
    assert torch.allclose(logits(theirs), logits(ours._model), atol=1e-5)  # type: ignore[attr-defined]


def test_each_part_may_have_its_own_rate() -> None:
    config = CombinationConfig(parts=(LORA, BitfitConfig()), rates=(1.0, 10.0))
    method = attached(base(), config)
    biases = {id(each) for each in method.parts()["part-1"].parameters().values()}
    for group in method.param_groups(learning_rate=1e-3, weight_decay=0.1):
        own = {id(each) for each in group["params"]}
        assert group["lr"] == pytest.approx(1e-2 if own <= biases else 1e-3)


def test_a_missing_part_is_told_by_its_folder(tmp_path: Path) -> None:
    method = attached(base(), combined(LORA, BitfitConfig()))
    methods.save(tmp_path / "a", method, base_model="tiny", base_fingerprint="0123")
    (tmp_path / "a" / "part-1" / "adapter_config.json").unlink()
    with pytest.raises(ModelError, match="not an adapter folder") as refused:
        methods.read(tmp_path / "a")
    assert "part-1" in refused.value.faults[0].place


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ((PrefixConfig(), PromptConfig()), "stands before the row"),
        ((LoraConfig(use_dora=True), LORA), "DoRA's norm"),
        ((AdaloraConfig(), LoraConfig(use_dora=True)), "DoRA's norm"),
        ((LoraConfig(modules_to_save=("norm",)),) * 2, "whole, as part 0 does"),
        ((LoraConfig(modules_to_save=("mlp",)), BottleneckConfig()), "which part 0 trains whole"),
        ((BitfitConfig(), LoraConfig(modules_to_save=("o_proj",))), "which part 1 trains whole"),
    ],
)
def test_what_is_not_defined_together_is_refused(parts: Any, said: str) -> None:
    shape = plan.shape_of(tiny_llama().config.to_dict())
    with pytest.raises(UsageError, match=said) as refused:
        trainable_tensors(combined(*parts), shape)
    assert refused.value.faults[0].place.startswith("method.parts.")


def test_rates_are_one_for_each_part(tmp_path: Path) -> None:
    from qtune.recipe import load as load_recipe

    path = tmp_path / "r.yaml"
    head = "model: {name_or_path: m}\ndata: {train: [{path: t.csv}]}\n"
    path.write_text(head + "method: {name: combination, parts: [{rank: 4}], rates: [1, 2]}\n")
    with pytest.raises(UsageError, match=r"method\.rates: .* is not one number for each part"):
        load_recipe(path)
