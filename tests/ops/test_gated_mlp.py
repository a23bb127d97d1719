"""The fused MLP is the plain one, whether it keeps or makes again what lies inside."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some

from qtune.methods.lora_linear import DoraLinear, LoraLinear
from qtune.ops import gated_mlp
from qtune.ops.gated_mlp import ACTIVATIONS, Mlp
from tests.ops.layers import KINDS, adapted, differences, exact, frozen, results

HIDDEN, WIDTH = 64, 192


def made(
    kind: str,
    activation: str,
    *,
    form: type[LoraLinear] = LoraLinear,
    dtype: torch.dtype = torch.float32,
    dropout: float = 0.0,
    bias: bool = False,
) -> Mlp:
    shapes = ((HIDDEN, WIDTH), (HIDDEN, WIDTH), (WIDTH, HIDDEN))
    gate, up, down = (
        adapted(frozen(kind, *shape, dtype=dtype, bias=bias), form=form, dropout=dropout)
        for shape in shapes
    )
    return Mlp(gate, up, down, activation)


def run(mlp: Mlp, x: torch.Tensor, *, way: str) -> list[torch.Tensor]:
    ways: dict[str, Any] = {
        "plain": gated_mlp.plain,
        "fused": gated_mlp.fused,
        "recompute": lambda x, mlp: gated_mlp.fused(x, mlp, recompute=True),
    }
    return results(lambda x: [ways[way](x, mlp)], x, mlp[:3])


@settings(max_examples=30, deadline=None)
@given(
    kind=some.sampled_from(KINDS),
    activation=some.sampled_from(sorted(ACTIVATIONS)),
    form=some.sampled_from([LoraLinear, DoraLinear]),
    tokens=some.sampled_from([1, 5, 523]),
    dropout=some.sampled_from([0.0, 0.4]),
    bias=some.booleans(),
)
@pytest.mark.filterwarnings("ignore:MatMul8bitLt")
def test_fused_is_plain(
    kind: str, activation: str, form: type[LoraLinear], tokens: int, dropout: float, bias: bool
) -> None:
    mlp = made(kind, activation, form=form, dropout=dropout, bias=bias)
    x = torch.randn(1, tokens, HIDDEN, generator=torch.Generator().manual_seed(tokens))
    plain = run(mlp, x, way="plain")
    fused = run(mlp, x, way="fused")
    assert max(differences(fused, plain)) < 1e-6
    again = run(mlp, x, way="recompute")
    assert all(torch.equal(one, other) for one, other in zip(again, fused, strict=True))


@pytest.mark.parametrize("form", [LoraLinear, DoraLinear])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_bf16_rounds_no_worse_than_plain(activation: str, form: type[LoraLinear]) -> None:
    mlp = made("nf4", activation, form=form, dtype=torch.bfloat16)
    x = torch.randn(1, 521, HIDDEN).bfloat16()
    gate, up, down = (exact(layer) for layer in mlp[:3])
    truth = run(Mlp(gate, up, down, activation), x.double(), way="plain")
    plain = differences(run(mlp, x, way="plain"), truth)
    fused = differences(run(mlp, x, way="fused"), truth)
    assert all(ours <= 1.1 * theirs + 1e-7 for ours, theirs in zip(fused, plain, strict=True))


@pytest.mark.parametrize(("recompute", "wide"), [(False, 2), (True, 0)])
def test_what_it_keeps(recompute: bool, wide: int) -> None:
    mlp = made("nf4", "silu", dtype=torch.bfloat16)
    sizes: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    x = torch.randn(10, HIDDEN).bfloat16().requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        gated_mlp.fused(x, mlp, recompute=recompute)
    adapters = 4 * 3 * 4  # A x of three adapters of rank 4, fp32
    assert sum(sizes.values()) == 10 * (2 * HIDDEN + wide * 2 * WIDTH + adapters)


def test_every_weight_is_unfolded_once_each_way(monkeypatch: pytest.MonkeyPatch) -> None:
    from qtune.ops import nf4

    unfolded = []
    original = nf4.dequantize
    monkeypatch.setattr(nf4, "dequantize", lambda *given: unfolded.append(1) or original(*given))
    mlp = made("nf4", "silu")
    unfolded.clear()
    x = torch.randn(3, HIDDEN, requires_grad=True)
    output = gated_mlp.fused(x, mlp)
    assert len(unfolded) == 3
    output.sum().backward()
    assert len(unfolded) == 6
