"""FLOPs as counted, against the formulas."""

from __future__ import annotations

import pytest
import torch

from qtune.data.batch import collate
from qtune.data.rows import EncodedRow
from qtune.losses import CausalLoss
from qtune.models.placing import set_8bit
from qtune.ops.nf4 import library, quantize_int8
from qtune.run.comparison.flops import Counter, counted
from tests.methods.bases import CASES, attached, load
from tests.tiny import save_tiny

LINEARS = 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128)  # weights of both layers
TOKENS, LEARNT = 20, 16  # what is learnt is on the grid of lengths
IDS = [5, *range(20, 39)]
ROW = EncodedRow(IDS, [-100] * (TOKENS - LEARNT) + IDS[TOKENS - LEARNT :], "row")


@pytest.mark.parametrize("kind", ["fp32", "nf4"])
def test_they_are_those_of_the_products(
    kind: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    model = load(save_tiny(tmp_path_factory.mktemp("tiny")), kind).model
    batch, loss = collate([ROW], pad_id=2), CausalLoss(chunk_size=64)
    forward, _ = counted(model, None, batch, loss)
    # queries against keys, and scores against values: 4 heads of 16
    attention = 2 * (2 * 2 * TOKENS * TOKENS * 64)
    head = 2 * LEARNT * 64 * 320
    rotary = 2 * TOKENS * 8  # positions by frequencies, which torch 2.11 does as a product, too
    assert forward - (2 * LINEARS * TOKENS + attention + head) in (0, rotary)

    method = attached(model, CASES["lora_fa"].model_copy(update={"dropout": 0.0}))
    inside, both = counted(model, method, batch, loss)
    low_rank = sum(adapter.base.in_features * 4 for adapter in method.adapters.values())  # A
    low_rank += sum(adapter.base.out_features * 4 for adapter in method.adapters.values())  # B
    assert inside == forward + 2 * low_rank * TOKENS
    assert both is not None
    # back through every weight but those before the first adapter, and the gradients of B
    assert 1.9 * inside < both < 3 * inside
    assert all(parameter.grad is None for parameter in method.parameters().values())


def test_a_nested_gradient_is_counted() -> None:
    x = torch.ones(3, 4, requires_grad=True)
    with Counter() as counter:
        (x @ torch.ones(4, 5)).sum().backward()
    assert counter.total == 2 * (2 * 3 * 4 * 5)


@pytest.mark.parametrize("training", [True, False])
def test_products_in_8_bits_count(training: bool) -> None:
    layer = library().nn.Linear8bitLt(256, 512, bias=False, has_fp16_weights=False, threshold=6.0)
    set_8bit(layer, *quantize_int8(torch.randn(512, 256)))
    layer.train(training)
    with torch.no_grad(), Counter() as found:
        layer(torch.randn(40, 256, dtype=torch.bfloat16))
    assert found.total == 2 * 40 * 256 * 512
