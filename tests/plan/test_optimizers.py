"""State bytes against the optimizers themselves, after one step on a CPU."""

from __future__ import annotations

import warnings
from math import ceil
from typing import get_args

import pytest
import torch

from qtune import optim
from qtune.plan.adapters import TrainableTensor
from qtune.plan.optimizers import OPTIMIZERS, states_of
from qtune.recipe.steps import OptimSection

NAMES = sorted(OPTIMIZERS)


def tensor(elements: int, bytes_each: int = 4) -> TrainableTensor:
    return TrainableTensor("part", "module", elements, bytes_each)


def test_every_optimizer_of_the_recipe_is_known() -> None:
    assert set(NAMES) == set(get_args(OptimSection.model_fields["name"].annotation))


@pytest.mark.parametrize("elements", [100, 4095, 4096, 5000])
@pytest.mark.parametrize("name", NAMES)
def test_bytes_are_those_of_a_real_step(name: str, elements: int) -> None:
    parameter = torch.nn.Parameter(torch.randn(elements))
    parameter.grad = torch.randn(elements)
    group = {"params": [parameter], "lr": 1e-3, "weight_decay": 0.0}
    optimizer = optim.make(OptimSection(name=name), [group])  # type: ignore[arg-type]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        optimizer.step()
    shared = {"qmap1", "qmap2", "step"}
    held = sum(
        value.nbytes
        for key, value in optimizer.state[parameter].items()
        if isinstance(value, torch.Tensor) and key not in shared
    )
    assert states_of(name, device="cpu").size(tensor(elements)) == held


def test_torch_keeps_states_in_the_dtype_of_the_parameter() -> None:
    assert states_of("adamw", device="cuda").size(tensor(5000, bytes_each=2)) == 2 * 5000 * 2
    assert states_of("paged_adamw_32bit", device="cuda").size(tensor(5000, 2)) == 2 * 5000 * 4


def test_known_bytes_by_hand() -> None:
    many = tensor(1_000_000)
    blocks = ceil(1_000_000 / 256)
    assert states_of("adamw_8bit", device="cuda").size(many) == 2 * (1_000_000 + 4 * blocks)
    assert states_of("lion_8bit", device="cuda").size(many) == 1_000_000 + 4 * blocks
    assert states_of("ademamix_8bit", device="cuda").size(many) == 3 * (1_000_000 + 4 * blocks)
    assert states_of("sgd", device="cuda").size(many) == 4_000_000


@pytest.mark.parametrize("name", NAMES)
def test_only_large_states_of_paged_optimizers_page_and_only_on_cuda(name: str) -> None:
    tensors = [tensor(99_999), tensor(100_000)]
    states = states_of(name, device="cuda")
    expected = states.size(tensors[1]) if name.startswith("paged_") else 0
    assert states.pageable(tensors) == expected
    assert states_of(name, device="cpu").pageable(tensors) == 0
    assert states_of(name, device="cpu").total(tensors) == states.total(tensors)
