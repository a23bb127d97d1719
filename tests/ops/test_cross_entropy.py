"""Cross-entropy through a head against a straight-line computation in fp64."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from weakref import WeakSet

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from qtune.methods.lora_linear import DoraLinear, LoraLinear
from qtune.methods.saved_module import SavedModule
from qtune.ops.cross_entropy import fused_cross_entropy, plain_cross_entropy, row_cross_entropy
from qtune.ops.logits import Criterion

POSITIONS, HIDDEN, VOCABULARY = 37, 16, 50
CRITERIA = {
    "plain": Criterion(),
    "smoothed": Criterion(label_smoothing=0.1),
    "capped": Criterion(softcap=3.0),
    "scaled": Criterion(scale=0.25),
    "z": Criterion(z_loss=1e-2),
    "all": Criterion(scale=1.7, softcap=5.0, label_smoothing=0.2, z_loss=1e-2),
}


def _inputs(
    positions: int = POSITIONS, hidden: int = HIDDEN, vocabulary: int = VOCABULARY, seed: int = 3
) -> tuple[torch.Tensor, torch.Tensor, nn.Linear]:
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(positions, hidden, generator=generator)
    target = torch.randint(0, vocabulary, (positions,), generator=generator)
    head = nn.Linear(hidden, vocabulary, bias=False)
    with torch.no_grad():
        head.weight.copy_(torch.randn(vocabulary, hidden, generator=generator))
    return states, target, head.requires_grad_(requires_grad=False)


def _exact(
    hidden: torch.Tensor, target: torch.Tensor, weight: torch.Tensor, criterion: Criterion
) -> torch.Tensor:
    """Each position's loss in fp64, by the book."""
    logits = hidden.double() @ weight.double().T * criterion.scale
    if criterion.softcap is not None:
        logits = criterion.softcap * torch.tanh(logits / criterion.softcap)
    log_sums = logits.exp().sum(1).log()
    right = log_sums - logits[torch.arange(len(target)), target]
    uniform = log_sums - logits.mean(1)
    s = criterion.label_smoothing
    return (1 - s) * right + s * uniform + criterion.z_loss * log_sums**2


def _relative(found: torch.Tensor, exact: torch.Tensor) -> float:
    return float((found.double() - exact).norm() / exact.norm().clamp_min(1e-30))


@pytest.mark.parametrize("name", CRITERIA)
@pytest.mark.parametrize("chunk_size", [1, 10, POSITIONS, 1000])
@pytest.mark.parametrize("trained", [False, True], ids=["frozen", "trained"])
def test_values_and_gradients_are_those_of_fp64(name: str, chunk_size: int, trained: bool) -> None:
    hidden, target, head = _inputs()
    hidden.requires_grad_()
    head.weight.requires_grad_(trained)
    total = fused_cross_entropy(hidden, target, head, CRITERIA[name], chunk_size=chunk_size)
    (total / 7).backward()
    exact = hidden.detach().double().requires_grad_()
    weight = head.weight.detach().double().requires_grad_()
    expected = _exact(exact, target, weight, CRITERIA[name]).sum()
    (expected / 7).backward()
    assert _relative(total.detach(), expected.detach()) < 1e-6
    assert _relative(hidden.grad, exact.grad) < 1e-6
    if trained:
        assert _relative(head.weight.grad, weight.grad) < 1e-6
    else:
        assert head.weight.grad is None


@pytest.mark.parametrize("name", CRITERIA)
def test_plain_and_single_positions_are_those_of_fp64(name: str) -> None:
    hidden, target, head = _inputs()
    expected = _exact(hidden, target, head.weight, CRITERIA[name])
    losses = row_cross_entropy(hidden, target, head, CRITERIA[name], chunk_size=10)
    torch.testing.assert_close(losses.double(), expected, rtol=1e-6, atol=1e-5)
    plain = plain_cross_entropy(hidden, target, head, CRITERIA[name])
    torch.testing.assert_close(plain.double(), expected.sum(), rtol=1e-6, atol=0)


def test_torch_agrees_on_label_smoothing() -> None:
    hidden, target, head = _inputs()
    ours = fused_cross_entropy(hidden, target, head, CRITERIA["smoothed"], chunk_size=9)
    theirs = functional.cross_entropy(head(hidden), target, reduction="sum", label_smoothing=0.1)
    torch.testing.assert_close(ours, theirs)


@settings(max_examples=60, deadline=None)
@given(
    positions=st.integers(0, 40),
    hidden=st.integers(1, 20),
    vocabulary=st.integers(2, 70),
    chunk_size=st.integers(1, 50),
    name=st.sampled_from(sorted(CRITERIA)),
    seed=st.integers(0, 10_000),
)
def test_any_shape(
    positions: int, hidden: int, vocabulary: int, chunk_size: int, name: str, seed: int
) -> None:
    states, target, head = _inputs(positions, hidden, vocabulary, seed)
    states.requires_grad_()
    criterion = CRITERIA[name]
    total = fused_cross_entropy(states, target, head, criterion, chunk_size=chunk_size, divisor=3)
    (total / 3).backward()
    exact = states.detach().double().requires_grad_()
    (_exact(exact, target, head.weight, criterion).sum() / 3).backward()
    torch.testing.assert_close(states.grad.double(), exact.grad, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("name", CRITERIA)
def test_bf16_is_no_worse_than_plain(name: str) -> None:
    hidden, target, head = _inputs(200, 64, 3000)
    head.weight.mul_(0.1)
    head = head.bfloat16()
    states = [hidden.bfloat16().requires_grad_() for _ in range(2)]
    exact = states[0].detach().double().requires_grad_()
    (_exact(exact, target, head.weight, CRITERIA[name]).sum() / 150).backward()
    fused = fused_cross_entropy(
        states[0], target, head, CRITERIA[name], chunk_size=64, divisor=150.0
    )
    plain = plain_cross_entropy(states[1], target, head, CRITERIA[name])
    for total in (fused, plain):
        (total / 150).backward()
    found, other = (_relative(state.grad, exact.grad) for state in states)
    assert found <= other * 1.001
    assert abs(float(fused.detach() - plain.detach())) <= 1e-6 * abs(float(plain.detach()))


def test_rows_are_worked_on_a_block_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    raw, target, _ = _inputs(POSITIONS, VOCABULARY)
    whole = Criterion().losses_and_gradient(raw, target, factor=0.5)
    losses = Criterion().losses(raw, target)
    monkeypatch.setattr("qtune.ops.logits.CPU_BLOCK", 3 * VOCABULARY)
    assert torch.equal(Criterion().losses_in_blocks(raw, target), losses)
    parts = Criterion().losses_and_gradient(raw, target, factor=0.5)
    for found, expected in zip(parts, whole, strict=True):
        assert torch.equal(found, expected)


def _adapted(kind: str) -> nn.Module:
    _, _, head = _inputs()
    if kind == "saved":
        return SavedModule(head, dtype=torch.float32, name="lm_head")
    layer = {"lora": LoraLinear, "dora": DoraLinear}[kind](
        head,
        rank=3,
        scale=2.0,
        dropout=0.0,
        dtype=torch.float32,
        generator=torch.Generator().manual_seed(1),
    )
    with torch.no_grad():
        layer.up.add_(0.1)
    return layer


@pytest.mark.parametrize("kind", ["lora", "dora", "saved"])
def test_an_adapted_head_gets_its_gradients(kind: str) -> None:
    hidden, target, _ = _inputs()
    found: list[dict[str, torch.Tensor]] = []
    for fused in (True, False):
        head = _adapted(kind)
        states = hidden.clone().requires_grad_()
        if fused:
            total = fused_cross_entropy(states, target, head, CRITERIA["all"], chunk_size=8)
        else:
            total = plain_cross_entropy(states, target, head, CRITERIA["all"])
        total.backward()
        trained = {name: tensor.grad for name, tensor in head.named_parameters()}
        found.append({"hidden": states.grad, "total": total.detach()} | trained)
    assert sum(value is not None for value in found[0].values()) >= 3
    for name, expected in found[1].items():
        if expected is None:
            assert found[0][name] is None
        else:
            torch.testing.assert_close(found[0][name], expected, rtol=2e-6, atol=2e-5)


def test_a_tied_and_trained_head_adds_to_its_embedding() -> None:
    _, target, head = _inputs()
    head.weight.requires_grad_()
    ids = torch.arange(POSITIONS) % VOCABULARY
    totals = (
        fused_cross_entropy(head.weight[ids], target, head, Criterion(), chunk_size=10),
        plain_cross_entropy(head.weight[ids], target, head, Criterion()),
    )
    gradients = [torch.autograd.grad(total, head.weight)[0] for total in totals]
    torch.testing.assert_close(gradients[0], gradients[1])


def test_no_supervised_position_is_a_loss_of_zero() -> None:
    _, _, head = _inputs()
    empty, none = torch.zeros(0, HIDDEN, requires_grad=True), torch.zeros(0, dtype=torch.long)
    total = fused_cross_entropy(empty, none, head, Criterion(), chunk_size=10)
    total.backward()
    assert total == 0
    assert empty.grad.shape == (0, HIDDEN)
    assert row_cross_entropy(empty, none, head, Criterion(), chunk_size=10).shape == (0,)


class _Live(TorchDispatchMode):
    """The most memory that results of operators held at a time, counted by storage."""

    def __init__(self) -> None:
        super().__init__()
        self.storages: WeakSet[Any] = WeakSet()
        self.products = self.peak = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: Any = (), keywords: Any = None
    ) -> Any:
        del types
        self.products += function.name().partition(".")[0] == "aten::mm"
        result = function(*arguments, **(keywords or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self.storages.add(tensor.untyped_storage())
        held = {storage.data_ptr(): storage.nbytes() for storage in self.storages}
        self.peak = max(self.peak, sum(held.values()))
        return result


def test_no_tensor_of_all_logits_lives_and_no_product_is_made_twice() -> None:
    hidden, target, head = _inputs(512, 8, 400)
    hidden.requires_grad_()
    criterion = replace(Criterion(), softcap=4.0, z_loss=1e-3)
    with _Live() as mode:
        fused_cross_entropy(hidden, target, head, criterion, chunk_size=32).backward()
    logits = 512 * 400 * 4
    assert mode.peak < logits / 2
    assert mode.products == 2 * (512 // 32)  # each chunk once forward, once backward
    with _Live() as mode:
        plain_cross_entropy(hidden, target, head, criterion).backward()
    assert mode.peak > 2 * logits  # the count sees what there is
