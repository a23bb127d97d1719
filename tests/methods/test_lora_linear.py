"""The arithmetic of one adapted layer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.pytorch_utils import Conv1D

from qtune.methods import lora_linear
from qtune.methods.lora_linear import DoraLinear, LoraLinear
from qtune.ops.nf4 import library, weight_of

INPUTS, OUTPUTS = 64, 96


def settings(**changes: Any) -> dict[str, Any]:
    given = {"rank": 4, "scale": 0.5, "dropout": 0.0, "dtype": torch.float32}
    return {**given, "generator": torch.Generator().manual_seed(0), **changes}


def moved(layer: LoraLinear) -> LoraLinear:
    """Away from the start, so that every term counts."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in layer.tensors().values():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return layer


def linear(kind: str) -> nn.Module:
    torch.manual_seed(0)
    plain = nn.Linear(INPUTS, OUTPUTS)
    if kind == "conv1d":
        layer = Conv1D(OUTPUTS, INPUTS)
        layer.weight.data.copy_(plain.weight.data.t())
    elif kind == "nf4":
        layer = library().nn.Linear4bit(
            INPUTS, OUTPUTS, compute_dtype=torch.float32, quant_type="nf4"
        )
        layer.load_state_dict(plain.state_dict())
        layer.support_avx512bf16_for_cpu = False
        layer.to("cpu")
    elif kind == "int8":
        layer = library().nn.Linear8bitLt(INPUTS, OUTPUTS, has_fp16_weights=False)
        layer.load_state_dict(plain.state_dict())
        layer.to("cpu")
    else:
        layer = plain
    return layer.requires_grad_(False)


@pytest.mark.parametrize("kind", ["linear", "conv1d", "nf4", "int8"])
@pytest.mark.parametrize("form", [LoraLinear, DoraLinear])
@pytest.mark.filterwarnings("ignore:MatMul8bitLt")  # bitsandbytes computes int8 in fp16
def test_it_is_the_dense_formula(kind: str, form: type[LoraLinear]) -> None:
    base = linear(kind)
    layer = moved(form(base, **settings()))
    x = torch.randn(3, 5, INPUTS)
    weight = weight_of(base).float() + 0.5 * layer.up @ layer.down
    if isinstance(layer, DoraLinear):
        weight = weight * (layer.magnitude / weight.norm(dim=1)).unsqueeze(1)
    expected = x @ weight.t() + base.bias
    # int8 activations are rounded by bitsandbytes.
    tolerance = 3e-2 if kind == "int8" else 1e-5
    assert torch.allclose(layer(x), expected, atol=tolerance)
    layer.enabled = False
    assert torch.equal(layer(x), base(x))


def test_the_input_gets_its_gradient() -> None:
    layer = moved(LoraLinear(linear("nf4"), **settings()))
    x = torch.randn(2, INPUTS, requires_grad=True)
    layer(x).sum().backward()
    weight = weight_of(layer.base) + 0.5 * (layer.up @ layer.down).detach()
    assert x.grad is not None
    assert torch.allclose(x.grad, weight.sum(dim=0).expand(2, -1), atol=1e-5)


def test_full_precision_adapters_on_a_bf16_base() -> None:
    base = linear("linear").to(torch.bfloat16)
    layer = moved(LoraLinear(base, **settings()))
    x = torch.randn(2, INPUTS, dtype=torch.bfloat16)
    out = layer(x)
    assert out.dtype == torch.bfloat16
    expected = base(x) + (0.5 * x.float() @ layer.down.t() @ layer.up.t()).bfloat16()
    assert torch.equal(out, expected)
    out.float().sum().backward()
    assert {tensor.grad.dtype for tensor in (layer.down, layer.up)} == {torch.float32}


def test_the_start_is_kaiming_uniform_and_zero() -> None:
    layer = LoraLinear(nn.Linear(1024, 8), **settings(rank=64))
    assert layer.down.abs().max() <= 1 / 32
    assert layer.down.detach().std().item() == pytest.approx(1 / 32 / 3**0.5, rel=0.02)
    assert not layer.up.any()


def test_dropout_is_on_the_adapters_input_in_training_only() -> None:
    layer = moved(LoraLinear(linear("linear"), **settings(dropout=0.5)))
    x = torch.randn(4, INPUTS)
    assert not torch.equal(layer(x), layer(x))
    torch.manual_seed(1)
    out = layer(x)
    torch.manual_seed(1)
    dropped = nn.functional.dropout(x, 0.5)
    assert torch.allclose(
        out, layer.base(x) + 0.5 * dropped @ layer.down.t() @ layer.up.t(), atol=1e-6
    )
    layer.eval()
    assert torch.equal(layer(x), layer(x))


def test_checkpointing_reproduces_the_dropout() -> None:
    layer = moved(LoraLinear(linear("linear"), **settings(dropout=0.5)))
    x = torch.randn(4, INPUTS)
    gradients = []
    for run in (layer, lambda x: checkpoint(layer, x, use_reentrant=False)):
        torch.manual_seed(2)
        run(x).pow(2).sum().backward()
        gradients.append(layer.down.grad.clone())
        layer.zero_grad()
    assert torch.equal(*gradients)


@pytest.mark.parametrize("rows", [7, 2048])
def test_the_fast_norm_is_the_direct_norm(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lora_linear, "ROWS", rows)
    layer = moved(DoraLinear(linear("nf4"), **settings()))
    direct = (weight_of(layer.base).double() + 0.5 * (layer.up @ layer.down).double()).norm(dim=1)
    assert torch.allclose(layer.weight_norm().double(), direct, rtol=1e-6)


def test_a_zero_row_stays_zero() -> None:
    base = linear("linear")
    base.weight[3] = 0.0
    layer = DoraLinear(base, **settings())
    x = torch.randn(2, INPUTS)
    assert torch.allclose(layer(x), base(x), atol=1e-6)


@pytest.mark.parametrize(("rslora", "expected"), [(True, 1.0), (False, 0.125)])
def test_rank_stabilised_scale_keeps_the_output_constant(rslora: bool, expected: float) -> None:
    from qtune.methods.lora_scale import scale_of
    from qtune.recipe.methods import LoraConfig

    x = torch.randn(64, 512, generator=torch.Generator().manual_seed(3))
    spread = []
    for rank in (4, 256):
        config = LoraConfig(rank=rank, alpha=8.0, use_rslora=rslora)
        layer = LoraLinear(nn.Linear(512, 512), **settings(rank=rank, scale=scale_of(config, "q")))
        nn.init.normal_(layer.up, generator=torch.Generator().manual_seed(4))
        spread.append(layer.update(x).std().item())
    assert spread[1] / spread[0] == pytest.approx(expected, rel=0.1)
