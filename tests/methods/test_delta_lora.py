"""Delta-LoRA: both forms are the paper's recurrence, and the weight's change has rank 2 r."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

import pytest
import torch

from qtune.errors import ModelError, UsageError
from qtune.methods import create, read, save
from qtune.methods.delta_linear import DeltaLinear
from qtune.methods.delta_lora import DeltaLora, as_lora
from qtune.methods.lora_linear import LoraLinear
from qtune.recipe.methods import CombinationConfig, DeltaLoraConfig, LoraConfig
from tests.methods.bases import attached, batch, dense_model, dense_state, load, logits, train
from tests.tiny import tiny_llama

if TYPE_CHECKING:
    from pathlib import Path

    from qtune.methods.base import Method

SETTINGS: dict[str, Any] = {"rank": 4, "alpha": 8.0}
WARMUP, RATIO = 3, 1.5
FORMS = {
    form: DeltaLoraConfig(**SETTINGS, warmup_steps=WARMUP, delta_ratio=RATIO, form=form)
    for form in ("virtual", "in_place")
}


def learner(config: DeltaLoraConfig) -> tuple[Any, DeltaLora]:
    model = tiny_llama().requires_grad_(False)
    method = attached(model, config)
    assert isinstance(method, DeltaLora)
    return model, method


def adam(method: Method) -> torch.optim.AdamW:
    return torch.optim.AdamW(method.param_groups(learning_rate=2e-3, weight_decay=0.0))


def step(model: Any, method: Method, optimizer: Any, number: int) -> float:
    model.train()
    method.before_step(number)
    loss = model(**batch()).loss
    loss.backward()
    optimizer.step()
    method.after_step(number)
    optimizer.zero_grad()
    return loss.item()  # type: ignore[no-any-return]


def papers_losses(steps: int) -> list[float]:
    """W += ratio s (B' A' - B A) after each step behind the warm-up, on a dense fp32 model."""
    model = tiny_llama().requires_grad_(False)
    method = attached(model, LoraConfig(**SETTINGS, dropout=0.0))
    optimizer, losses = adam(method), []
    layers = [each for each in method.adapters.values() if isinstance(each, LoraLinear)]
    for number in range(steps):
        before = [layer.up.detach() @ layer.down.detach() for layer in layers]
        losses.append(step(model, method, optimizer, number))
        for layer, old in zip(layers, before, strict=True):
            if number >= WARMUP:
                change = layer.up.detach() @ layer.down.detach() - old
                layer.base.weight.data += RATIO * layer.scale * change  # type: ignore[operator]
    return losses


@pytest.mark.parametrize("form", FORMS)
def test_both_forms_are_the_papers_recurrence(form: str) -> None:
    model, method = learner(FORMS[form])
    optimizer = adam(method)
    losses = [step(model, method, optimizer, number) for number in range(30)]
    assert losses == pytest.approx(papers_losses(30), abs=1e-4)
    plain = tiny_llama().requires_grad_(False)
    other = train(plain, attached(plain, LoraConfig(**SETTINGS, dropout=0.0)), rate=2e-3, steps=8)
    assert abs(other[7] - losses[7]) > 1e-3, "which is not LoRA's"


@pytest.mark.parametrize("form", FORMS)
def test_the_weights_change_is_of_rank_2r_and_the_base_keeps_its_own(form: str) -> None:
    model, method = learner(FORMS[form])
    plain = dense_state(tiny_llama())
    train(model, method, rate=1e-2, steps=12)
    found = logits(model)
    edits = DeltaLora.merge_edits(FORMS[form], method.adapter_state())
    merged = {**plain, **{name: edit.apply(plain[name]) for name, edit in edits.items()}}
    assert torch.allclose(logits(dense_model(merged)), found, atol=1e-5)
    for name, layer in method.adapters.items():
        assert isinstance(layer, DeltaLinear)
        own = layer.scale * layer.up.detach() @ layer.down.detach()
        change = (merged[f"{name}.weight"] - plain[f"{name}.weight"] - own).double()
        values = torch.linalg.svdvals(change)
        assert 4 < int((values > 1e-4 * values[0]).sum()) <= 8
        assert torch.allclose(change.float(), layer.gain(), atol=1e-6)
    with method.disabled():
        assert torch.equal(logits(model), logits(tiny_llama()))
    method.detach()
    assert torch.equal(logits(model), logits(tiny_llama()))


@pytest.mark.parametrize("form", FORMS)
def test_a_run_within_the_warm_up_is_lora_bit_for_bit(form: str) -> None:
    model, method = learner(FORMS[form])
    plain = tiny_llama().requires_grad_(False)
    other = attached(plain, LoraConfig(**SETTINGS, dropout=0.0))
    one, two = (adam(each) for each in (method, other))
    for number in range(WARMUP):
        assert step(model, method, one, number) == step(plain, other, two, number)
    assert torch.equal(logits(model), logits(plain))


def test_the_warm_up_fits_the_run() -> None:
    """A tenth of it without a wish, and a wish that leaves no step after it is refused."""
    model, method = learner(DeltaLoraConfig(**SETTINGS))
    method.will_train(20, longest_row=64)
    optimizer = adam(method)
    moves = []
    for number in range(3):
        step(model, method, optimizer, number)
        moves.append({each.moves for each in method.adapters.values()})  # type: ignore[attr-defined]
    assert moves == [{False}, {False}, {True}]
    found = logits(model)
    method.will_train(
        200, longest_row=64
    )  # gone on with for longer: what moves does not stand still again
    method.before_step(3)
    assert torch.equal(logits(model), found)
    _, asked = learner(DeltaLoraConfig(**SETTINGS, warmup_steps=20))
    asked.will_train(21, longest_row=64)
    with pytest.raises(UsageError, match=r"20 steps .* leave none of 20") as refused:
        asked.will_train(20, longest_row=64)
    assert refused.value.faults[0].place == "method.warmup_steps"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("done", [2, 3, 6])
def test_interrupted_is_straight(tmp_path: Path, form: str, done: int) -> None:
    """In the warm-up, at its end and later: from the adapter's file."""
    model, method = learner(FORMS[form])
    optimizer = adam(method)
    for number in range(done):
        step(model, method, optimizer, number)
    save(tmp_path / "a", method, base_model="tiny", base_fingerprint="0")
    found = read(tmp_path / "a")
    assert found.config.form == form  # type: ignore[union-attr]
    again_model = tiny_llama().requires_grad_(False)
    again = create(FORMS[form], seed=0)
    again.attach(again_model)
    again.load_adapter(found.tensors)
    assert torch.equal(logits(model), logits(again_model))
    other = adam(again)
    other.load_state_dict(deepcopy(optimizer.state_dict()))
    for number in range(done, 9):
        one = step(model, method, optimizer, number)
        assert one == step(again_model, again, other, number)
    assert torch.equal(logits(model), logits(again_model))


@pytest.mark.parametrize("use_rslora", [False, True])
def test_it_is_a_plain_lora_of_twice_the_rank(use_rslora: bool) -> None:
    config = DeltaLoraConfig(
        **SETTINGS,
        warmup_steps=WARMUP,
        use_rslora=use_rslora,
        rank_pattern={"v_proj": 3},
        alpha_pattern={"up_proj": 5.0},
        modules_to_save=("model.norm",),
    )
    model, method = learner(config)
    train(model, method, rate=2e-3, steps=8)
    plain, tensors = as_lora(config, method.adapter_state())
    other = tiny_llama().requires_grad_(False)
    attached(other, plain).load_adapter(tensors)
    assert torch.allclose(logits(other), logits(model), atol=1e-5)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")
def test_in_place_on_4_bit_is_refused(tiny_folder: Path) -> None:
    model = load(tiny_folder, "nf4").model
    with pytest.raises(UsageError, match="in_place needs a 16-bit weight") as refused:
        attached(model, FORMS["in_place"])
    assert "virtual" in refused.value.faults[0].hint
    attached(model, FORMS["virtual"])


@pytest.mark.parametrize("form", FORMS)
def test_in_a_combination_it_stands_over_another_only_virtually(form: str) -> None:
    lora = LoraConfig(**SETTINGS, dropout=0.0)
    model = tiny_llama().requires_grad_(False)
    attached(model, CombinationConfig(parts=(FORMS[form], lora)))
    model = tiny_llama().requires_grad_(False)
    if form == "virtual":
        attached(model, CombinationConfig(parts=(lora, FORMS[form])))
        return
    with pytest.raises(UsageError, match="another method stands before it"):
        attached(model, CombinationConfig(parts=(lora, FORMS[form])))


def test_a_file_without_its_snapshot_is_refused() -> None:
    _, method = learner(FORMS["virtual"])
    state = method.adapter_state()
    lacking = {name: state[name] for name in state if "q_proj.delta_B" not in name}
    with pytest.raises(ModelError, match=r"lacks .*q_proj\.delta_B"):
        DeltaLora.merge_edits(FORMS["virtual"], lacking)
    with pytest.raises(ModelError, match="are missing"):
        method.load_adapter(lacking)
