"""Every optimizer by name, on a problem with a known answer."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from qtune import optim
from qtune.recipe.steps import OptimSection

SIZE = 4096  # from here on bitsandbytes keeps 8-bit states


def _section(**settings: object) -> OptimSection:
    return OptimSection.model_validate(settings)


def _fit(name: str, steps: int = 60) -> tuple[float, torch.optim.Optimizer]:
    torch.manual_seed(0)
    target = torch.randn(SIZE)
    parameter = nn.Parameter(torch.zeros(SIZE))
    rate = 0.3 if name == "sgd" else 0.05
    optimizer = optim.make(_section(name=name, learning_rate=rate), [{"params": [parameter]}])
    for _ in range(steps):
        loss = ((parameter - target) ** 2).sum() / 2
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return float(((parameter.detach() - target) ** 2).mean()), optimizer


@pytest.mark.parametrize("name", list(optim.OPTIMIZERS))
def test_every_optimizer_reaches_the_target(name: str) -> None:
    error, _ = _fit(name)
    assert error < 0.1  # it starts at 1


@pytest.mark.parametrize(
    ("name", "bytes_per_parameter"),
    [("paged_adamw_32bit", 8), ("adamw", 8), ("adamw_8bit", 2), ("lion_8bit", 1), ("sgd", 4)],
)
def test_states_have_the_size_the_plan_counts(name: str, bytes_per_parameter: int) -> None:
    _, optimizer = _fit(name, steps=1)
    exact = SIZE * bytes_per_parameter
    # 8-bit states carry a code table of 256 values and a constant a block
    assert exact <= optim.state_bytes(optimizer) <= exact + 2 * 256 * 4 + SIZE // 256 * 4 * 2 + 8


def test_adamw_32bit_is_adamw() -> None:
    ours, _ = _fit("paged_adamw_32bit", steps=5)
    torchs, _ = _fit("adamw", steps=5)
    assert ours == pytest.approx(torchs, rel=1e-5)


def test_the_decay_of_sgd_is_decoupled() -> None:
    torch.manual_seed(0)
    matrix, vector = nn.Parameter(torch.randn(5, 3)), nn.Parameter(torch.randn(3))
    unused = nn.Parameter(torch.ones(2))
    groups = [{"params": [matrix, unused], "weight_decay": 0.3}]
    groups += [{"params": [vector], "weight_decay": 0.0}]
    section = _section(name="sgd", learning_rate=0.1, betas=[0.8, 0.9])
    optimizer = optim.make(section, groups)
    expected = [each.detach().double() for each in (matrix, vector)]
    moments = [torch.zeros_like(each) for each in expected]
    for number in range(6):
        optim.set_learning_rate(optimizer, 1 / (1 + number))
        rate = 0.1 / (1 + number)
        for place, parameter in enumerate((matrix, vector)):
            parameter.grad = torch.randn_like(parameter)
            moments[place] = 0.8 * moments[place] + parameter.grad.double()
            kept = 1 - rate * (0.3 if place == 0 else 0.0)
            expected[place] = expected[place] * kept - rate * moments[place]
        optimizer.step()
    for found, wanted in zip((matrix, vector), expected, strict=True):
        torch.testing.assert_close(found.double(), wanted, rtol=1e-6, atol=1e-6)
    assert torch.equal(unused, torch.ones(2)), "what has no gradient keeps its weight"
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.3, 0.0]


def test_groups_keep_their_ratio_under_a_schedule() -> None:
    slow, fast = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))
    groups = [{"params": [slow], "lr": 1e-3}, {"params": [fast], "lr": 1.6e-2}]
    optimizer = optim.make(_section(name="adamw", learning_rate=1e-3), groups)
    assert optim.set_learning_rate(optimizer, 0.5) == pytest.approx(5e-4)
    rates = [group["lr"] for group in optimizer.param_groups]
    assert rates == pytest.approx([5e-4, 8e-3])
    optim.set_learning_rate(optimizer, 0.25)
    assert optimizer.param_groups[1]["lr"] == pytest.approx(4e-3)
