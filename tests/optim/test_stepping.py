"""An update that the device may refuse: nothing changes then, and else it is the usual one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from qtune import optim
from qtune.recipe.steps import OptimSection

NAMES = [*optim.OPTIMIZERS, "adamw fused", "sgd fused"]


def _made(name: str) -> tuple[list[nn.Parameter], torch.optim.Optimizer]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(64, 64), (7,), (4096,)]
    parameters = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
    groups = [{"params": parameters[:2]}, {"params": parameters[2:], "lr": 3e-2}]
    name, _, fused = name.partition(" ")
    section = OptimSection.model_validate(
        {"name": name, "learning_rate": 1e-2, "weight_decay": 0.1}
    )
    optimizer = optim.make(section, groups)
    if fused:  # what `make` does on CUDA
        for group in optimizer.param_groups:
            group |= {"fused": True, "foreach": False}
    return parameters, optimizer


def _gradients(parameters: list[nn.Parameter], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def _state(parameters: list[nn.Parameter], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    names = {str(number): parameter for number, parameter in enumerate(parameters)}
    tensors, numbers = optim.state_of(optimizer, names)
    weights = {name: parameter.detach().clone() for name, parameter in names.items()}
    return weights | tensors | numbers


def _equal(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(value, other[name]) if torch.is_tensor(value) else value == other[name]
        for name, value in one.items()
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_refused_update_leaves_every_bit(name: str) -> None:
    parameters, optimizer = _made(name)
    for seed in range(3):
        _gradients(parameters, seed)
        optim.step_unless(optimizer, torch.tensor(False))
    before = _state(parameters, optimizer)
    _gradients(parameters, 3)
    parameters[0].grad[0, 0] = float("nan")
    optim.step_unless(optimizer, torch.tensor(True))
    assert _equal(_state(parameters, optimizer), before)
    _gradients(parameters, 4)
    optim.step_unless(optimizer, torch.tensor(False))
    assert not _equal(_state(parameters, optimizer), before)


@pytest.mark.parametrize("name", NAMES)
def test_an_update_is_the_optimizers_own(name: str) -> None:
    ours, theirs = _made(name), _made(name)
    for seed in range(3):
        for parameters, _ in (ours, theirs):
            _gradients(parameters, seed)
        optim.step_unless(ours[1], torch.tensor(False))
        theirs[1].step()
    assert _equal(_state(*ours), _state(*theirs))


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_fused_is_not_fused(name: str) -> None:
    plain, fused = _made(name), _made(f"{name} fused")
    for seed in range(5):
        for parameters, optimizer in (plain, fused):
            _gradients(parameters, seed)
            optimizer.step()
    for one, other in zip(plain[0], fused[0], strict=True):
        torch.testing.assert_close(other, one, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_a_state_goes_on_where_it_was_kept(name: str) -> None:
    straight = _made(name)
    for seed in range(2):
        _gradients(straight[0], seed)
        optim.step_unless(straight[1], torch.tensor(False))
    names = {str(number): parameter for number, parameter in enumerate(straight[0])}
    tensors, numbers = optim.state_of(straight[1], names)
    again = _made(name)
    for one, other in zip(again[0], straight[0], strict=True):
        one.data.copy_(other.data)
    places = {str(number): parameter for number, parameter in enumerate(again[0])}
    optim.load_state(again[1], places, tensors, numbers)
    for parameters, optimizer in (straight, again):
        _gradients(parameters, 9)
        optim.step_unless(optimizer, torch.tensor(False))
    assert _equal(_state(*again), _state(*straight))
