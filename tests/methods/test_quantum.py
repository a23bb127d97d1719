"""Quantum-PEFT: orthonormal columns that stay so, those of the circuit, at the paper's cost."""

from __future__ import annotations

from math import log2
from typing import Any

import pytest
import torch
from torch import Tensor

from qtune.errors import UsageError
from qtune.methods.orthonormal import circuit_columns, exponential_columns, start_angles
from qtune.methods.quantum import Quantum, QuantumLinear, columns
from qtune.plan.quantum import circuit_angles, generators, kept_bytes, powers_of_two
from qtune.recipe.methods import QuantumConfig
from tests.methods.bases import attached, logits, randomise, train
from tests.tiny import tiny_llama

FORMS = {
    "pauli": QuantumConfig(rank=4, circuit_layers=2, target_modules=("q_proj", "up_proj")),
    "taylor": QuantumConfig(rank=4, form="taylor", target_modules=("q_proj", "up_proj")),
}


def learner(config: QuantumConfig, **sizes: Any) -> tuple[Any, Quantum]:
    model = tiny_llama(**sizes).requires_grad_(False)
    method = attached(model, config)
    assert isinstance(method, Quantum)
    return model, method


def layers(method: Quantum) -> list[QuantumLinear]:
    return [each for each in method.adapters.values() if isinstance(each, QuantumLinear)]


def unevenness(columns: Tensor) -> float:
    wide = columns.double()
    return float((wide.T @ wide - torch.eye(wide.shape[1])).norm())


def gate(qubits: int, place: int, matrix: Tensor) -> Tensor:
    """A gate on some qubits from `place` on, as a matrix on all of them."""
    width = int(log2(len(matrix)))
    before, after = torch.eye(2**place), torch.eye(2 ** (qubits - place - width))
    return torch.kron(torch.kron(before.double(), matrix), after.double())


def turn(angle: Tensor) -> Tensor:
    cosine, sine = (angle / 2).cos(), (angle / 2).sin()
    return torch.stack([torch.stack([cosine, -sine]), torch.stack([sine, cosine])])


@pytest.mark.parametrize(("qubits", "depth"), [(1, 1), (2, 1), (5, 1), (6, 3), (7, 2)])
def test_a_circuit_is_its_gates_one_after_another(qubits: int, depth: int) -> None:
    angles = torch.randn(circuit_angles(2**qubits, depth), dtype=torch.float64)
    left = list(angles)
    whole = torch.eye(2**qubits, dtype=torch.float64)
    for qubit in range(qubits):
        whole = gate(qubits, qubit, turn(left.pop(0))) @ whole
    flip = torch.diag(torch.tensor([1.0, 1.0, 1.0, -1.0], dtype=torch.float64))
    for _ in range(depth):
        for first in (0, 1):
            for qubit in range(first, qubits - 1, 2):
                whole = gate(qubits, qubit, flip) @ whole
                whole = gate(qubits, qubit, turn(left.pop(0))) @ whole
                whole = gate(qubits, qubit + 1, turn(left.pop(0))) @ whole
    assert not left
    found = circuit_columns(angles, size=2**qubits, rank=2, layers=depth)
    assert torch.allclose(found, whole[:, :2], atol=1e-12)


@pytest.mark.parametrize("size", [3, 7, 44, 896, 4864])
def test_any_size_has_orthonormal_columns_in_all_its_rows(size: int) -> None:
    rank = min(4, powers_of_two(size)[0])
    draw = torch.Generator().manual_seed(0)
    angles = start_angles(size=size, rank=rank, layers=1, generator=draw).requires_grad_()
    config = QuantumConfig(rank=rank)
    assert len(angles) == generators(config, size)
    found = circuit_columns(angles, size=size, rank=rank, layers=1)
    assert found.shape == (size, rank)
    assert unevenness(found.detach()) < 1e-5
    assert found.detach().norm(dim=1).min() > 0
    (found * torch.randn(found.shape, generator=draw)).sum().backward()
    assert angles.grad is not None
    assert bool((angles.grad != 0).all())


@pytest.mark.parametrize(("rank", "filled"), [(3, 3), (5, 2), (1, 1)])
def test_the_other_form_is_the_exponential_of_a_skew_matrix(rank: int, filled: int) -> None:
    numbers = 2 * torch.randn(9 * filled - filled * (filled + 1) // 2, dtype=torch.float64)
    skew = torch.zeros(9, 9, dtype=torch.float64)
    rows, columns = torch.tril_indices(9, filled, offset=-1)
    skew[rows, columns] = numbers
    whole = torch.linalg.matrix_exp(skew - skew.T)
    found = exponential_columns(numbers, size=9, rank=rank, filled=filled)
    assert torch.allclose(found, whole[:, :rank], atol=1e-10)


@pytest.mark.parametrize("form", FORMS)
def test_columns_stay_orthonormal_and_the_rank_is_k(form: str) -> None:
    model, method = learner(FORMS[form])
    train(model, method, rate=3e-2, steps=50)
    for layer in layers(method):
        sides = [side.detach() for side in layer._sides()]
        assert max(map(unevenness, sides)) < 1e-5
    edits = Quantum.merge_edits(method.config, method.adapter_state())
    name = "model.layers.0.mlp.up_proj.weight"
    change = edits[name].apply(torch.zeros(128, 64))
    values = torch.linalg.svdvals(change.double())
    assert int((values > 1e-5 * values[0]).sum()) == 4


def test_the_paper_counts_the_same() -> None:
    """K + (2 L + 1)(log2 n + log2 m) - 4 L for the circuit; 2 n K - K^2 (n = m) for the other."""
    _, method = learner(FORMS["pauli"])
    for layer in layers(method):
        count = sum(tensor.numel() for tensor in layer.tensors().values())
        assert count == 4 + 5 * (log2(layer.outputs) + log2(layer.inputs)) - 8
    _, method = learner(QuantumConfig(rank=4, form="taylor", intrinsic_rank=3))
    for layer in layers(method):
        if layer.outputs == layer.inputs == 64:
            count = sum(tensor.numel() for tensor in layer.tensors().values())
            assert count == 2 * 64 * 3 - 3**2 - 3 + 4


@pytest.mark.parametrize("form", FORMS)
def test_evaluation_sees_every_change_of_the_numbers(form: str) -> None:
    model, method = learner(FORMS[form])
    randomise(method)
    first = logits(model)
    assert torch.equal(first, logits(model)), "made once"
    for step in range(2):
        if step:  # as an optimizer does that autograd does not see
            for parameter in method.parameters().values():
                parameter.data.add_(0.1)
            model.train()
        else:
            randomise(method, seed=6)
        found = logits(model)
        again, other = learner(FORMS[form])
        other.load_adapter(method.adapter_state())
        assert torch.equal(found, logits(again))
        assert not torch.equal(found, first)


@pytest.mark.parametrize("size", [512, 896])
@pytest.mark.parametrize("form", FORMS)
def test_making_columns_keeps_what_the_plan_counts(form: str, size: int) -> None:
    config = FORMS[form]
    numbers = torch.randn(generators(config, size), requires_grad=True)
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        made = columns(config, numbers, size)
        torch.nn.functional.linear(torch.ones(1, size, requires_grad=True), made.t())
    assert sum(kept.values()) == pytest.approx(kept_bytes(config, size), rel=0.15)


def test_a_rank_that_no_side_has_is_refused() -> None:
    with pytest.raises(UsageError, match="at most 32 in this form"):
        learner(QuantumConfig(rank=33), hidden_size=48, intermediate_size=96)
    with pytest.raises(UsageError, match=r"5 is above method\.rank, 4"):
        learner(QuantumConfig(rank=4, form="taylor", intrinsic_rank=5))
