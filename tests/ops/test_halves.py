"""A product on halves is as exact as one in fp32."""

from __future__ import annotations

import pytest
import torch

from qtune.ops.halves import add_product


@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 3, 5), (130, 16, 33)])
@pytest.mark.parametrize("size", [1e-4, 1.0, 1e4])
def test_it_errs_no_more_than_a_product_in_fp32(shape: tuple[int, int, int], size: float) -> None:
    rows, inner, columns = shape
    draw = torch.Generator().manual_seed(0)
    left = torch.randn(rows, inner, generator=draw) * size
    right = torch.randn(inner, columns, generator=draw)
    before = torch.randn(rows, columns, generator=draw).bfloat16()
    true = before.double() + 0.5 * left.double() @ right.double()

    found = before.clone()
    assert add_product(found, left, right, scale=0.5)
    in_fp32 = before + (0.5 * left @ right).bfloat16()
    error, other = ((made.double() - true).abs().mean() for made in (found, in_fp32))
    assert error <= other * 1.05 + 2**-16 * float(true.abs().mean())
    torch.testing.assert_close(found.double(), true, rtol=2**-8, atol=2**-15 * size * inner)


@pytest.mark.parametrize("dtypes", [("float32", "float32"), ("bfloat16", "bfloat16")])
def test_other_dtypes_are_left_alone(dtypes: tuple[str, str]) -> None:
    output, factor = (torch.ones(2, 2, dtype=getattr(torch, name)) for name in dtypes)
    assert not add_product(output, factor, factor, scale=1.0)
    assert bool((output == 1).all())
