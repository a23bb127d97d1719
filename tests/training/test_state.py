"""A run that is taken apart between two steps and put together again goes on bit for bit."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from qtune import methods, models, optim
from qtune.errors import ModelError
from qtune.losses import CausalLoss
from qtune.recipe.inputs import ModelSection, QuantizationSection
from qtune.recipe.methods import LoraConfig
from qtune.recipe.steps import ActivationPolicy, OptimSection
from qtune.training import Job, StepEvent, fit, restore, training_state
from tests.training.learning import feed_of, uneven_rows

if TYPE_CHECKING:
    from pathlib import Path

STEPS = 6
# of rank 64 the matrices have 4,096 elements and more: from there on 8-bit states are 8-bit
EIGHT_BIT = ["paged_adamw_8bit", "adamw_8bit", "lion_8bit", "paged_lion_8bit", "ademamix_8bit"]
OPTIMIZERS = [*EIGHT_BIT, "paged_adamw_32bit", "adamw", "sgd"]


def _job(
    folder: Path,
    name: str,
    *,
    dropout: float = 0.2,
    activations: ActivationPolicy = "none",
    capacity: int | None = None,
    use_dora: bool = False,
) -> Job:
    base = models.load(
        ModelSection(name_or_path=str(folder)),
        QuantizationSection(bits=4, compute_dtype="float32"),
        device=torch.device("cpu"),
        activations=activations,
    )
    method = methods.create(
        LoraConfig(rank=64, alpha=16.0, dropout=dropout, use_dora=use_dora), seed=0
    )
    method.attach(base.model)
    section = OptimSection.model_validate({"name": name, "learning_rate": 1e-3})
    groups = method.param_groups(learning_rate=1e-3, weight_decay=0.01)
    torch.manual_seed(5)
    return Job(
        model=base.model,
        method=method,
        loss=CausalLoss(chunk_size=16),
        optimizer=optim.make(section, groups),
        schedule=optim.schedule(section, total_steps=STEPS, warmup_steps=2),
        feed=feed_of(uneven_rows(), batch_size=6, micro_batch_size=3, capacity=capacity),
        total_steps=STEPS,
        steps_per_epoch=3,
        max_grad_norm=0.3,
    )


def _run(job: Job, *, until: int = STEPS) -> list[tuple[float, float, float]]:
    told = []
    for event in fit(job):
        if isinstance(event, StepEvent):
            told.append((event.loss, event.grad_norm, event.learning_rate))
        elif event.step == until:
            break
    return told


def _all(job: Job) -> dict[str, torch.Tensor]:
    tensors, numbers = training_state(job.method, job.optimizer)
    numbered = {name: torch.tensor(float(value)) for name, value in numbers.items()}
    return job.method.adapter_state() | tensors | numbered


def _resumed(folder: Path, name: str, cut: int, **settings: Any) -> tuple[Job, list[Any]]:
    """A run stopped after `cut` steps, and a new one that takes over its state alone."""
    first = _job(folder, name, **settings)
    told = _run(first, until=cut)
    adapter = first.method.adapter_state()
    tensors, numbers = training_state(first.method, first.optimizer)
    second = replace(_job(folder, name, **settings), start=cut)
    torch.manual_seed(77)
    second.method.load_adapter(adapter)
    restore(second.method, second.optimizer, tensors, numbers)
    return second, told + _run(second)


def _equal(folder: Path, name: str, cut: int, **settings: Any) -> None:
    straight = _job(folder, name, **settings)
    told = _run(straight)
    resumed, told_again = _resumed(folder, name, cut, **settings)
    assert told_again == told
    expected, found = _all(straight), _all(resumed)
    assert found.keys() == expected.keys()
    different = [key for key, tensor in expected.items() if not torch.equal(found[key], tensor)]
    assert different == []


@pytest.mark.parametrize("cut", [2, 3, 4], ids=["inside", "epoch border", "second epoch"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_goes_on(tiny_folder: Path, name: str, cut: int) -> None:
    _equal(tiny_folder, name, cut)


@pytest.mark.parametrize(
    "settings",
    [
        {"activations": "layer"},
        {"activations": "selective"},
        {"capacity": 24},
        {"dropout": 0.0},
        {"use_dora": True},
    ],
    ids=["layer", "selective", "packed", "no dropout", "dora"],
)
@pytest.mark.parametrize("name", ["paged_adamw_8bit", "adamw"])
def test_every_way_of_training_goes_on(
    tiny_folder: Path, name: str, settings: dict[str, Any]
) -> None:
    _equal(tiny_folder, name, 4, **settings)


@pytest.mark.parametrize("name", EIGHT_BIT)
def test_these_states_are_really_8_bit(tiny_folder: Path, name: str) -> None:
    job = _job(tiny_folder, name)
    _run(job, until=1)
    tensors, _ = training_state(job.method, job.optimizer)
    kinds = [tensor.dtype for label, tensor in tensors.items() if label.endswith("/state1")]
    assert kinds.count(torch.uint8) > len(kinds) / 2


def test_without_the_optimizers_state_the_rest_is_another(tiny_folder: Path) -> None:
    straight = _job(tiny_folder, "adamw")
    _run(straight)
    first = _job(tiny_folder, "adamw")
    _run(first, until=3)
    second = replace(_job(tiny_folder, "adamw"), start=3)
    second.method.load_adapter(first.method.adapter_state())
    _run(second)
    left, right = straight.method.adapter_state(), second.method.adapter_state()
    assert any(not torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda tensors: tensors.pop("random/cpu"), "random states of nothing"),
        (lambda tensors: tensors.update({"other/x": torch.zeros(1)}), "other/x"),
        (lambda tensors: tensors.update({"method/x": torch.zeros(1)}), "method state"),
        (lambda tensors: tensors.update({"optimizer/gone/step": torch.zeros(())}), "gone"),
        (
            lambda tensors: [tensors.pop(k) for k in list(tensors) if "layers.0.mlp.up" in k],
            "no optimizer state for",
        ),
        (
            lambda tensors: tensors.update(
                {k: torch.zeros(3) for k in list(tensors) if k.endswith("state1")}
            ),
            "here it is torch.uint8",
        ),
        (
            lambda tensors: [tensors.pop(k) for k in list(tensors) if k.endswith("absmax2")],
            "this optimizer has",
        ),
    ],
    ids=["no random", "foreign", "method", "parameter", "missing", "shape", "constants"],
)
def test_a_state_that_does_not_fit_is_refused(tiny_folder: Path, harm: Any, says: str) -> None:
    job = _job(tiny_folder, "adamw_8bit")
    _run(job, until=1)
    tensors, numbers = training_state(job.method, job.optimizer)
    if says.startswith("no optimizer"):
        numbers = {key: value for key, value in numbers.items() if "layers.0.mlp.up" not in key}
    harm(tensors)
    fresh = _job(tiny_folder, "adamw_8bit")
    with pytest.raises(ModelError, match=says):
        restore(fresh.method, fresh.optimizer, tensors, numbers)


def test_the_state_of_another_optimizer_is_refused(tiny_folder: Path) -> None:
    job = _job(tiny_folder, "adamw")
    _run(job, until=1)
    tensors, numbers = training_state(job.method, job.optimizer)
    other = _job(tiny_folder, "adamw_8bit")
    with pytest.raises(ModelError, match="this optimizer has"):
        restore(other.method, other.optimizer, tensors, numbers)
