"""4-bit weights of any width against a straight-line reading of their codes, and their products
against a dense weight's."""

from __future__ import annotations

import pytest
import torch

from qtune.ops.frozen_product import frozen_product
from qtune.ops.nf4 import dequantize, library, quantize

WIDTHS = [32, 64, 80, 96, 160, 172, 224, 288, 97]


def _straight(codes: torch.Tensor, absmax: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    """code[nibble] * the constant of its block of 64, element by element."""
    table = library().functional.get_4bit_type("nf4", device="cpu").double()
    flat = codes.flatten()
    nibbles = torch.stack([flat >> 4, flat & 15], dim=1).flatten()[: shape[0] * shape[1]]
    blocks = torch.arange(len(nibbles)) // 64
    return (table[nibbles.long()] * absmax.double()[blocks]).view(shape)


@pytest.mark.parametrize("rows", [1, 3, 8])
@pytest.mark.parametrize("width", WIDTHS)
def test_a_weight_of_any_width_is_read_rightly(width: int, rows: int) -> None:
    weight = torch.randn(rows, width, generator=torch.Generator().manual_seed(width))
    codes, state = quantize(weight, quant_type="nf4", double_quant=False)
    expected = _straight(codes, state.absmax, (rows, width))
    torch.testing.assert_close(dequantize(codes, state).double(), expected, rtol=1e-6, atol=1e-7)
    double, nested = quantize(weight, quant_type="nf4", double_quant=True)
    error = (dequantize(double, nested) - weight).norm() / weight.norm()
    assert error < 0.13
    assert state.shape == weight.shape


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("width", [64, 96, 288])
def test_its_product_and_gradient_are_those_of_the_dense_weight(
    width: int, dtype: torch.dtype
) -> None:
    random = torch.Generator().manual_seed(1)
    weight = torch.randn(40, width, generator=random)
    bias = torch.randn(40, generator=random).to(dtype)
    codes, state = quantize(weight, quant_type="nf4", double_quant=True, dtype=dtype)
    dense = dequantize(codes, state)
    x, y = (
        torch.randn(2, 5, width, generator=torch.Generator().manual_seed(2)).to(dtype)
        for _ in range(2)
    )
    ours = frozen_product(x.requires_grad_(), codes, state, bias)
    theirs = torch.nn.functional.linear(y.requires_grad_(), dense, bias)
    ours.float().square().sum().backward()
    theirs.float().square().sum().backward()
    assert x.grad is not None
    assert y.grad is not None
    near = {"rtol": 1e-5, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 2e-1}
    torch.testing.assert_close(ours, theirs, **near)
    torch.testing.assert_close(x.grad, y.grad, **near)
