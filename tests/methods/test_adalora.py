"""AdaLoRA: the budget is met exactly, by PEFT's allocation, and a checkpoint carries all of it."""

from __future__ import annotations

import json
from copy import deepcopy
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from qtune.errors import ModelError, UsageError
from qtune.methods import create, read, save
from qtune.methods.adalora import Adalora, SvdLinear
from qtune.methods.adalora_budget import Schedule, kept
from qtune.recipe.methods import AdaloraConfig
from tests.methods.bases import attached, batch, logits, randomise
from tests.tiny import tiny_llama

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")
SETTINGS: dict[str, Any] = {
    "rank": 6,
    "target_rank": 3,
    "alpha": 8.0,
    "dropout": 0.0,
    "initial_steps": 4,
    "final_steps": 6,
    "interval": 2,
}
CONFIG = AdaloraConfig(**SETTINGS)
STEPS = 20


def learner(config: AdaloraConfig = CONFIG, *, total: int = STEPS) -> tuple[Any, Adalora]:
    model = tiny_llama().requires_grad_(False)
    method = attached(model, config)
    assert isinstance(method, Adalora)
    method.will_train(total, longest_row=64)
    return model, method


def steps(model: Any, method: Adalora, optimizer: Any, numbers: range) -> list[int]:
    """Train some steps; the triplets that are on after each."""
    model.train()
    found = []
    for step in numbers:
        method.before_step(step)
        model(**batch()).loss.backward()
        extra = method.extra_loss()
        if extra is not None:
            extra.backward()
        method.after_backward(step)
        optimizer.step()
        method.after_step(step)
        optimizer.zero_grad()
        found.append(sum(int((layer.singular != 0).sum()) for layer in layers(method)))
    return found


def layers(method: Adalora) -> list[SvdLinear]:
    return [layer for layer in method.adapters.values() if isinstance(layer, SvdLinear)]


def adam(method: Adalora, rate: float = 2e-2) -> torch.optim.AdamW:
    return torch.optim.AdamW(method.param_groups(learning_rate=rate, weight_decay=0.0))


def test_the_budget_is_met_exactly_and_shared_unevenly() -> None:
    model, method = learner()
    on = steps(model, method, adam(method), range(STEPS))
    count = len(layers(method))
    assert on[3] == 6 * count, "nothing is pruned in the first phase"
    assert on[-6:] == [3 * count] * 6, "nor more than asked in the last"
    pruned = on[5::2]
    assert pruned == sorted(pruned, reverse=True)
    assert len({int((layer.singular != 0).sum()) for layer in layers(method)}) > 1


def test_the_schedule_is_pefts() -> None:
    peft = pytest.importorskip("peft")
    from peft.tuners.adalora.layer import RankAllocator

    allocator = RankAllocator.__new__(RankAllocator)
    allocator.init_bgt, allocator.target_bgt = 60, 20
    allocator.peft_config = peft.AdaLoraConfig(
        tinit=5, tfinal=10, deltaT=3, total_step=40, init_r=12, target_r=4
    )
    ours = Schedule(first=60, last=20, begins=5, final=10, total=40, interval=3)
    for step in range(1, 41):
        budget, masks = allocator.budget_schedule(step)
        assert ours.at(step) == (budget if masks else None), step


@pytest.mark.parametrize("interval", [2, 3])
def test_what_stays_is_what_peft_keeps(interval: int) -> None:
    """The same weights and gradients through both to the end of the run, importance and threshold
    included, where the interval meets the final phase and where it does not."""
    peft = pytest.importorskip("peft")
    settings = peft.AdaLoraConfig(
        task_type="CAUSAL_LM",
        init_r=6,
        target_r=3,
        lora_alpha=8,
        lora_dropout=0.0,
        tinit=4,
        tfinal=6,
        deltaT=interval,
        total_step=STEPS,
        target_modules="all-linear",
    )
    theirs = peft.get_peft_model(tiny_llama(), settings)
    model, method = learner(AdaloraConfig(**{**SETTINGS, "interval": interval}))
    named = dict(theirs.named_parameters())
    for name, parameter in method.parameters().items():
        named[f"{name}.default"].data.copy_(parameter.data)
    optimizer = torch.optim.AdamW([p for p in named.values() if p.requires_grad], lr=2e-2,
                                  weight_decay=0.0)  # fmt: skip
    own = adam(method)
    for step in range(STEPS):
        steps(model, method, own, range(step, step + 1))
        theirs(**batch()).loss.backward()
        optimizer.step()
        theirs.base_model.update_and_allocate(step + 1)
        optimizer.zero_grad()
        for name, parameter in method.parameters().items():
            found = named[f"{name}.default"]
            assert torch.allclose(parameter, found, rtol=1e-3, atol=1e-4), (step, name)


def test_interrupted_is_straight() -> None:
    model, method = learner()
    optimizer = adam(method)
    steps(model, method, optimizer, range(9))
    weights, state, moments = (
        method.adapter_state(),
        method.state(),
        deepcopy(optimizer.state_dict()),
    )
    again_model, again = learner()
    again.load_adapter(weights)
    again.load_state(state)
    other = adam(again)
    other.load_state_dict(moments)
    one = steps(model, method, optimizer, range(9, STEPS))
    two = steps(again_model, again, other, range(9, STEPS))
    assert one == two
    assert torch.equal(logits(model), logits(again_model))
    with pytest.raises(ModelError, match="method state"):
        again.load_state({})


def test_ties_keep_the_whole_budget() -> None:
    scores = [torch.zeros(4), torch.tensor([1.0, 0.0, 2.0, 0.0])]
    assert [mask.tolist() for mask in kept(scores, 4)] == [
        [True, True, False, False],
        [True, False, True, False],
    ]


def test_the_penalty_is_that_of_the_paper() -> None:
    _, method = learner(AdaloraConfig(**SETTINGS, orthogonality=0.3))
    randomise(method)
    grams = [layer.right @ layer.right.T for layer in layers(method)]
    grams += [layer.left.T @ layer.left for layer in layers(method)]
    terms = [((gram - torch.eye(6)) ** 2).sum().sqrt() for gram in grams]
    extra = method.extra_loss()
    assert extra is not None
    assert torch.allclose(extra, 0.3 * torch.stack(terms).mean(), rtol=1e-5)
    assert learner(AdaloraConfig(**SETTINGS, orthogonality=0.0))[1].extra_loss() is None


def test_pefts_file_is_ours_and_ours_is_pefts(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    model, method = learner()
    steps(model, method, adam(method), range(STEPS))
    save(tmp_path / "ours", method, base_model="tiny", base_fingerprint="0")
    theirs = peft.PeftModel.from_pretrained(tiny_llama(), tmp_path / "ours", is_trainable=True)
    with torch.no_grad():
        found = logits(SimpleModel(theirs))
    assert torch.allclose(found, logits(model), atol=1e-5)
    theirs.save_pretrained(tmp_path / "theirs", save_embedding_layers=False)
    fresh = tiny_llama().requires_grad_(False)
    read(tmp_path / "theirs").attach(fresh, base_fingerprint=None)
    assert torch.allclose(logits(fresh), logits(model), atol=1e-5)


def test_transposed_weights_of_gpt2_merge_as_they_were_learnt(tmp_path: Path) -> None:
    torch.manual_seed(5)
    model = GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=1, n_head=2, vocab_size=320))
    weights = deepcopy(model.state_dict())
    method = attached(model.requires_grad_(False), CONFIG)
    randomise(method)
    save(tmp_path, method, base_model="gpt2", base_fingerprint="0")
    fresh = GPT2LMHeadModel(model.config).requires_grad_(False)
    fresh.load_state_dict(weights)
    for name, edit in read(tmp_path).merge_edits().items():
        fresh.get_parameter(name).data = edit.apply(fresh.get_parameter(name))
    assert torch.allclose(logits(fresh), logits(model), atol=1e-5)


@pytest.mark.filterwarnings("ignore:Adapter 'default'. 2 LoRA tensor")
@pytest.mark.filterwarnings("ignore:The following rank_pattern keys:RuntimeWarning")
def test_a_file_of_what_peft_kept_is_read(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    settings = peft.AdaLoraConfig(
        init_r=6, target_r=3, total_step=20, tinit=2, tfinal=4, lora_alpha=9,
        target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM",
    )  # fmt: skip
    theirs = peft.get_peft_model(tiny_llama(), settings)
    drawn = torch.Generator().manual_seed(3)
    pattern = {}
    for number, (name, parameter) in enumerate(theirs.named_parameters()):
        if ".lora_" in name:
            parameter.data = 0.3 * torch.randn(parameter.shape, generator=drawn)
        if ".lora_E." in name:
            kept = [place % 3 != number % 3 for place in range(6)]
            parameter.data *= torch.tensor(kept)[:, None]
            pattern[name.removeprefix("base_model.model.")] = kept
    first = next(iter(pattern))
    pattern[first] = [False] * 6  # a layer of which nothing was kept
    theirs.get_parameter(f"base_model.model.{first}").data.zero_()
    theirs.peft_config["default"].rank_pattern = pattern
    theirs.save_pretrained(tmp_path / "theirs")
    again = peft.PeftModel.from_pretrained(tiny_llama(), tmp_path / "theirs", is_trainable=True)
    file = read(tmp_path / "theirs")
    assert all(tensor.shape[0] == 6 for n, tensor in file.tensors.items() if "lora_E" in n)
    fresh = tiny_llama().requires_grad_(False)
    file.attach(fresh, base_fingerprint=None)
    with torch.no_grad():
        found = logits(SimpleModel(again))
    assert torch.allclose(logits(fresh), found, atol=1e-5)
    merged = tiny_llama().requires_grad_(False)
    assert not torch.allclose(logits(merged), found, atol=1e-3)
    for name, edit in file.merge_edits().items():
        merged.get_parameter(name).data = edit.apply(merged.get_parameter(name))
    assert torch.allclose(logits(merged), found, atol=1e-5)
    config = json.loads((tmp_path / "theirs" / "adapter_config.json").read_text())
    config["rank_pattern"][first] = [True] * 5
    (tmp_path / "theirs" / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="rank_pattern does not fit"):
        read(tmp_path / "theirs")


class SimpleModel:
    """PEFT's model without the penalty, which it adds only to a loss."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def eval(self) -> None:
        self.model.eval()

    def __call__(self, **given: Any) -> Any:
        return SimpleNamespace(logits=self.model(**given).logits)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UsageError, match=r"6 is not below method\.rank, 6"):
        attached(tiny_llama().requires_grad_(False), AdaloraConfig(rank=6, target_rank=6))
    with pytest.raises(UsageError, match="leave none of 10"):
        learner(total=10)
    _, method = learner(AdaloraConfig(rank=6, target_rank=3), total=40)
    assert method._schedule == Schedule(
        first=84, last=42, begins=4, final=12, total=40, interval=10
    )
    assert isinstance(create(CONFIG, seed=0), Adalora)
