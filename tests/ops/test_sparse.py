"""Products with a sparse matrix against dense ones, and its places against autograd's gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from qtune.ops import sparse
from qtune.ops.sparse import Places, gradient_rows, largest, sparse_product, watched

SIZES = [(7, 5, 9), (8, 4, 8), (1, 3, 1), (9, 6, 54)]


@pytest.fixture(params=[2, 4, 2048], autouse=True)
def rows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of few rows, so that small matrices have several."""
    monkeypatch.setattr(sparse, "ROWS", request.param)


def given(outputs: int, inputs: int) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(outputs)
    x = torch.randn(2, 3, inputs, dtype=torch.float64, generator=draw, requires_grad=True)
    return x, torch.randn(2, 3, outputs, dtype=torch.float64, generator=draw)


@pytest.mark.parametrize(("outputs", "inputs", "count"), SIZES)
def test_places_are_those_of_the_largest_gradients(outputs: int, inputs: int, count: int) -> None:
    x, grad = given(outputs, inputs)
    weight = torch.zeros(outputs, inputs, dtype=torch.float64, requires_grad=True)
    (x @ weight.T).backward(grad)
    assert weight.grad is not None
    found = torch.cat([block for _, block in gradient_rows(x.detach(), grad)])
    assert torch.allclose(found, weight.grad)
    flat = largest(gradient_rows(x.detach(), grad), count)
    best = weight.grad.abs().flatten().float().topk(count).indices
    assert flat.tolist() == sorted(best.tolist())
    assert torch.equal(Places.of_flat(flat, outputs=outputs, inputs=inputs).flat(), flat)


@pytest.mark.parametrize(("outputs", "inputs", "count"), SIZES)
def test_products_and_gradients_are_the_dense_ones(outputs: int, inputs: int, count: int) -> None:
    x, grad = given(outputs, inputs)
    flat = torch.randperm(outputs * inputs)[:count].sort().values
    values = torch.randn(count, dtype=torch.float64, requires_grad=True)
    whole = torch.zeros(outputs * inputs, dtype=torch.float64).index_put((flat,), values)
    expected = x @ whole.view(outputs, inputs).T
    wanted = torch.autograd.grad(expected, (x, values), grad)
    found = sparse_product(x, values, Places.of_flat(flat, outputs=outputs, inputs=inputs))
    assert torch.allclose(found, expected)
    for ours, theirs in zip(torch.autograd.grad(found, (x, values), grad), wanted, strict=True):
        assert torch.allclose(ours, theirs)


def test_watching_changes_nothing_and_is_told_once() -> None:
    x, grad = given(4, 5)
    weight = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    seen: list[tuple[Tensor, Tensor]] = []
    output = watched(x @ weight.T, x, lambda *pair: seen.append(pair))
    assert torch.equal(output, x @ weight.T)
    found = torch.autograd.grad(output, (x, weight), grad)
    plain = torch.autograd.grad(x @ weight.T, (x, weight), grad)
    assert all(torch.equal(a, b) for a, b in zip(found, plain, strict=True))
    assert len(seen) == 1
    assert torch.equal(seen[0][0], x)
    assert torch.equal(seen[0][1], grad)
