"""Masks with exact counts, and SparseGPT against a straight-line solution in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from qtune.ops.nf4 import dequantize, quantize
from qtune.ops.pruning import DAMPING, Pattern, Share, lowest, magnitude, sparse_gpt, wanda

HALF, TWO_OF_FOUR = Share(0.5), Pattern(2, 4)


def _inputs(tokens: int = 512, features: int = 64, seed: int = 0) -> Tensor:
    """Correlated features, two of them large: what language models show."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(features, features, generator=generator, dtype=torch.float64)
    inputs = torch.randn(tokens, features, generator=generator, dtype=torch.float64) @ mixing
    inputs[:, [3, 20]] *= 20
    return inputs


def _weight(rows: int = 48, columns: int = 64) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(1)).double()


def _pruned(inputs: Tensor, weight: Tensor, sparsity: Share | Pattern) -> dict[str, Tensor]:
    return {
        "magnitude": magnitude(weight, sparsity),
        "wanda": wanda(weight, inputs.norm(dim=0), sparsity),
        "sparsegpt": sparse_gpt(weight, inputs.T @ inputs, sparsity, block=16),
    }


def _straight(weight: Tensor, inputs: Tensor, count: int, block: int) -> Tensor:
    """Optimal brain surgeon column by column: the inverse of what is left of the Hessian, anew for
    each column, instead of one Cholesky factor."""
    hessian = inputs.T @ inputs
    hessian = hessian + DAMPING * hessian.diagonal().mean() * torch.eye(len(hessian)).double()
    weight = weight.clone()
    columns = weight.shape[1]
    masked = torch.zeros_like(weight, dtype=torch.bool)
    for j in range(columns):
        if j % block == 0:
            spread = torch.stack(
                [torch.linalg.inv(hessian[k:, k:])[0, 0] for k in range(j, j + block)]
            )
            scores = weight[:, j : j + block].square() / spread
            order = scores.flatten().argsort()[:count]
            chosen = torch.zeros(scores.numel(), dtype=torch.bool)
            chosen[order] = True
            masked[:, j : j + block] = chosen.reshape(scores.shape)
        inverse = torch.linalg.inv(hessian[j:, j:])
        for row in range(weight.shape[0]):
            if masked[row, j]:
                weight[row, j:] -= weight[row, j] / inverse[0, 0] * inverse[0]
                weight[row, j] = 0
    return weight


def test_sparse_gpt_is_optimal_brain_surgery() -> None:
    inputs, weight = _inputs(features=32), _weight(6, 32)
    found = sparse_gpt(weight, inputs.T @ inputs, HALF, block=8)
    torch.testing.assert_close(found, _straight(weight, inputs, 24, 8), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("sparsity", [HALF, TWO_OF_FOUR, Share(0.3), Pattern(4, 8)])
def test_each_method_is_better_than_the_one_before(sparsity: Share | Pattern) -> None:
    inputs, weight = _inputs(), _weight()
    errors = {
        name: float((inputs @ (weight - pruned).T).square().sum())
        for name, pruned in _pruned(inputs, weight, sparsity).items()
    }
    assert errors["sparsegpt"] < errors["wanda"] < errors["magnitude"]


@pytest.mark.parametrize("name", ["magnitude", "wanda", "sparsegpt"])
@pytest.mark.parametrize("value", [0.0, 0.5, 0.7, 0.3])
def test_the_share_is_exact(name: str, value: float) -> None:
    weight = _weight()
    zeros = _pruned(_inputs(), weight, Share(value))[name] == 0
    if name == "wanda":
        assert (zeros.sum(1) == int(value * 64 + 1e-9)).all()
    else:
        assert int(zeros.sum()) == int(value * weight.numel() + 1e-9)


@pytest.mark.parametrize("name", ["magnitude", "wanda", "sparsegpt"])
@pytest.mark.parametrize("pattern", [TWO_OF_FOUR, Pattern(1, 4), Pattern(4, 8)])
def test_a_pattern_is_exact(name: str, pattern: Pattern) -> None:
    pruned = _pruned(_inputs(), _weight(), pattern)[name]
    kept = (pruned != 0).reshape(-1, pattern.of).sum(1)
    assert (kept == pattern.keep).all()


def test_equal_scores_are_taken_from_the_left() -> None:
    scores = torch.tensor([[1.0, 1, 1, 0], [2, 1, 1, 1]])
    expected = [[True, False, False, True], [False, True, True, False]]
    assert lowest(scores, 2).tolist() == expected


def test_an_input_that_is_never_seen_costs_nothing() -> None:
    inputs, weight = _inputs(), _weight()
    inputs[:, 7] = 0
    for pruned in (
        wanda(weight, inputs.norm(dim=0), HALF),
        sparse_gpt(weight, inputs.T @ inputs, HALF, block=16),
    ):
        assert (pruned[:, 7] == 0).all()
        assert pruned.isfinite().all()


def test_fewer_tokens_than_features_are_enough() -> None:
    inputs, weight = _inputs(tokens=8).float(), _weight().float()
    pruned = sparse_gpt(weight, inputs.T @ inputs, HALF)
    assert pruned.isfinite().all()
    assert float((pruned == 0).float().mean()) == 0.5


def test_nf4_keeps_zeros() -> None:
    pruned = magnitude(_weight(128, 64).float(), HALF)
    codes, state = quantize(pruned, quant_type="nf4", double_quant=True)
    back = dequantize(codes, state)
    assert (back[pruned == 0] == 0).all()
    assert 0.5 <= float((back == 0).float().mean()) < 0.52
