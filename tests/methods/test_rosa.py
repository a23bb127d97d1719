"""RoSA: places where autograd's gradient is largest, as many as asked, chosen once and kept."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

import pytest
import torch

from qtune.errors import ModelError, UsageError
from qtune.methods import create, read, save
from qtune.methods.rosa import Rosa
from qtune.methods.rosa_linear import COLUMNS, POINTERS, VALUES, RosaLinear
from qtune.ops.nf4 import weight_of
from qtune.recipe.methods import LoraConfig, RosaConfig
from tests.methods.bases import attached, batch, load, logits, take_steps, train
from tests.tiny import tiny_llama

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS: dict[str, Any] = {"rank": 4, "alpha": 8.0, "dropout": 0.0}
CONFIG = RosaConfig(**SETTINGS, density=0.02, warmup_steps=3)


def learner(config: RosaConfig = CONFIG, model: Any = None) -> tuple[Any, Rosa]:
    model = model or tiny_llama().requires_grad_(False)
    method = attached(model, config)
    assert isinstance(method, Rosa)
    return model, method


def adam(method: Rosa) -> torch.optim.AdamW:
    return torch.optim.AdamW(method.param_groups(learning_rate=1e-2, weight_decay=0.0))


def places(method: Rosa) -> dict[str, list[int]]:
    return {
        name: layer.places.flat().tolist() if layer.places else []
        for name, layer in method.layers().items()
    }


@pytest.mark.parametrize("kind", ["nf4", "fp32"])
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")
def test_the_places_are_autograds_on_a_dense_copy(tiny_folder: Path, kind: str) -> None:
    """Under recomputation, with the low-rank part trained: dL/dW of a copy that may learn W."""
    model, method = learner(model=load(tiny_folder, kind, activations="layer").model)
    optimizer = adam(method)
    take_steps(model, method, optimizer, range(3))
    assert not any(places(method).values()), "none in the warm-up"
    copy = tiny_llama().requires_grad_(False)
    for name, parameter in copy.named_parameters():
        owner = f"base_model.model.{name.removesuffix('.weight')}"
        if layer := method.layers().get(owner):
            change = layer.scale * layer.up.detach() @ layer.down.detach()
            parameter.data = weight_of(layer.base).float() + change
            parameter.requires_grad_(True)
        else:
            parameter.data = model.get_parameter(name).data.float()
    copy.train()
    copy(**batch()).loss.backward()
    take_steps(model, method, optimizer, range(3, 4))
    for name, flat in places(method).items():
        grad = copy.get_parameter(f"{name.removeprefix('base_model.model.')}.weight").grad
        assert grad is not None
        sizes = grad.abs().flatten()
        assert len(flat) == len(set(flat)) == int(0.02 * grad.numel() + 1e-9)
        assert sizes[flat].min() >= 0.999 * sizes.topk(len(flat)).values[-1]


def test_before_its_places_are_chosen_it_is_lora() -> None:
    model, method = learner()
    plain = tiny_llama().requires_grad_(False)
    train(plain, attached(plain, LoraConfig(**SETTINGS)), rate=1e-2, steps=3)
    take_steps(model, method, adam(method), range(3))
    assert torch.equal(logits(model), logits(plain))
    assert all(not layer.values.requires_grad for layer in method.layers().values())


def test_the_warm_up_fits_the_run() -> None:
    """A tenth of it without a wish, 64 at most; a wish that leaves no step is refused."""
    config = RosaConfig(**SETTINGS, density=0.02)
    for total, begins in ((1, 0), (39, 3), (5000, 64)):
        _, method = learner(config)
        method.will_train(total, longest_row=64)
        layer = next(iter(method.layers().values()))
        choosing = []
        for step in (begins - 1, begins):
            method.before_step(step)
            choosing.append(layer.choosing)
        assert choosing == [False, True]
    _, asked = learner()
    asked.will_train(4, longest_row=64)
    with pytest.raises(UsageError, match=r"3 steps .* leave none of 3") as refused:
        asked.will_train(3, longest_row=64)
    assert refused.value.faults[0].place == "method.warmup_steps"


def test_each_weight_keeps_its_share_where_it_was_chosen() -> None:
    model, method = learner()
    optimizer = adam(method)
    take_steps(model, method, optimizer, range(4))
    chosen = places(method)
    assert all(not layer.values.any() for layer in method.layers().values()), "values from zero"
    take_steps(model, method, optimizer, range(4, 12))
    assert places(method) == chosen
    for name, layer in method.layers().items():
        zero = torch.zeros(weight_of(layer.base).shape)
        edit = Rosa.merge_edits(CONFIG, method.adapter_state())[
            f"{name.removeprefix('base_model.model.')}.weight"
        ]
        sparse = edit.apply(zero) - layer.scale * layer.up.detach() @ layer.down.detach()
        found = (sparse.flatten().abs() > 1e-6).nonzero().flatten().tolist()
        assert set(found) <= set(chosen[name])
        assert len(found) > 0.9 * len(chosen[name])


def test_a_step_done_again_chooses_anew() -> None:
    """The first micro-batch decides; what a step that was not finished saw is forgotten."""
    _, method = learner(RosaConfig(**SETTINGS, density=0.02, warmup_steps=0))
    layer = next(iter(method.layers().values()))
    draw = torch.Generator().manual_seed(1)
    lost, first, second = (torch.randn(2, 2, 3, 64, generator=draw) for _ in range(3))
    method.before_step(0)
    layer.choose(*lost)
    method.before_step(0)
    layer.choose(*first)
    layer.choose(*second)
    method.after_backward(0)
    grad = (first[1].reshape(-1, 64).T @ first[0].reshape(-1, 64)).abs().flatten()
    assert layer.places is not None
    assert layer.places.flat().tolist() == sorted(grad.topk(81).indices.tolist())
    others = list(method.layers().values())[1:]
    assert all(each.places is None and not each.choosing for each in others), "they wait"


@pytest.mark.parametrize("done", [2, 4, 7])
def test_interrupted_is_straight(tmp_path: Path, done: int) -> None:
    """In the warm-up, right after the choice and later: from the adapter's file."""
    model, method = learner()
    optimizer = adam(method)
    take_steps(model, method, optimizer, range(done))
    save(tmp_path / "a", method, base_model="tiny", base_fingerprint="0")
    moments = deepcopy(optimizer.state_dict())
    again_model = tiny_llama().requires_grad_(False)
    again = create(CONFIG, seed=0)
    again.attach(again_model)
    again.load_adapter(read(tmp_path / "a").tensors)
    assert isinstance(again, Rosa)
    other = adam(again)
    other.load_state_dict(moments)
    one = take_steps(model, method, optimizer, range(done, 10))
    assert one == take_steps(again_model, again, other, range(done, 10))
    assert torch.equal(logits(model), logits(again_model))
    assert places(method) == places(again)


def test_the_places_of_a_finished_run_are_there_from_the_start(tmp_path: Path) -> None:
    model, method = learner()
    save(tmp_path / "early", method, base_model="tiny", base_fingerprint="0")
    take_steps(model, method, adam(method), range(6))
    save(tmp_path / "run" / "adapter", method, base_model="tiny", base_fingerprint="0")
    config = CONFIG.model_copy(update={"mask_from": str(tmp_path / "run")})
    fresh_model, fresh = learner(config)
    assert places(fresh) == places(method)
    assert torch.equal(logits(fresh_model), logits(tiny_llama())), "from scratch"
    train(fresh_model, fresh, rate=1e-2, steps=2)
    assert all(layer.values.all() for layer in fresh.layers().values())
    for folder, said in (("early", "before its places were chosen"), ("none", "no such folder")):
        with pytest.raises(ModelError, match=said):
            create(CONFIG.model_copy(update={"mask_from": str(tmp_path / folder)}), seed=0)
    with pytest.raises(ModelError, match="have another shape"):
        learner(config.model_copy(update={"density": 0.03}))


def test_values_learn_at_their_own_rate_without_decay() -> None:
    _, method = learner(RosaConfig(**SETTINGS, sparse_lr_ratio=0.5))
    matrices, sparse = method.param_groups(learning_rate=4e-3, weight_decay=0.1)
    assert (matrices["lr"], matrices["weight_decay"]) == (4e-3, 0.1)
    assert (sparse["lr"], sparse["weight_decay"]) == (2e-3, 0.0)
    assert all(tensor.ndim == 1 for tensor in sparse["params"])


def broken(state: dict[str, torch.Tensor], end: str, value: int) -> dict[str, torch.Tensor]:
    changed = {name: tensor.clone() for name, tensor in state.items()}
    first = next(name for name in changed if name.endswith(f".{end}"))
    changed[first][-1] = value
    return changed


@pytest.mark.parametrize(("end", "value"), [(COLUMNS, 64), (COLUMNS, -1), (POINTERS, 5)])
def test_indices_that_are_no_places_are_refused(end: str, value: int) -> None:
    model, method = learner()
    take_steps(model, method, adam(method), range(5))
    state = broken(method.adapter_state(), end, value)
    with pytest.raises(ModelError, match="no places in its layer"):
        method.load_adapter(state)
    edits = Rosa.merge_edits(CONFIG, state)
    with pytest.raises(ModelError, match="no places in its layer"):
        [edit.apply(torch.zeros(64, 64)) for name, edit in edits.items() if "q_proj" in name]


def test_a_density_that_leaves_no_place_is_refused() -> None:
    with pytest.raises(UsageError, match="no place at all"):
        learner(RosaConfig(**SETTINGS, density=1e-4))


def test_the_count_is_the_floor() -> None:
    _, method = learner(RosaConfig(**SETTINGS, density=0.29, target_modules=("q_proj",)))
    layer = next(iter(method.layers().values()))
    assert isinstance(layer, RosaLinear)
    assert len(method.adapter_state()[f"{next(iter(method.layers()))}.{VALUES}"]) == 1187
