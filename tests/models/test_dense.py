"""A base made dense with an adapter in it computes what base and adapter did."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from qtune.methods.base import Edit
from qtune.models.dense import dense_bytes, make_dense
from qtune.ops.linears import linear_modules
from qtune.ops.nf4 import is_quantized
from tests.methods.bases import CASES, attached, load, logits, randomise
from tests.tiny import save_tiny

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("case", ["lora", "saved", "bitfit", "ia3", "selective"])
@pytest.mark.parametrize("kind", ["nf4", "fp32"])
def test_it_is_the_attached_model(case: str, kind: str, tmp_path: Path) -> None:
    model = load(save_tiny(tmp_path / "tiny"), kind).model
    method = attached(model, CASES[case])
    randomise(method)
    wanted = logits(model)
    edits = type(method).merge_edits(CASES[case], method.adapter_state())
    method.detach()
    plain = logits(model)
    make_dense(model, edits, dtype=torch.float32)
    assert (logits(model) - wanted).abs().max() < 1e-5
    assert (wanted - plain).abs().max() > 1e-2
    assert not any(map(is_quantized, linear_modules(model).values()))


def test_the_bytes_are_those_of_the_weights(tmp_path: Path) -> None:
    model = load(save_tiny(tmp_path / "tiny"), "nf4").model
    needed = dense_bytes(model, torch.bfloat16)
    make_dense(model, {}, dtype=torch.bfloat16)
    assert needed == sum(module.weight.nbytes for module in linear_modules(model).values())
    assert dense_bytes(model, torch.bfloat16) == 0


def test_edits_are_made_on_the_cpu_wherever_the_model_is() -> None:
    files = torch.ones(4, 8)  # as an adapter's file is read

    def apply(weight: torch.Tensor | None) -> torch.Tensor:
        assert weight is not None
        return weight.add_(files)

    with FakeTensorMode(allow_non_fake_inputs=True):
        model = nn.Sequential(nn.Linear(8, 4, bias=False, device="meta"))
        model[0].weight = nn.Parameter(torch.empty(4, 8, device="cuda"))
        make_dense(model, {"0.weight": Edit(True, apply)}, dtype=torch.bfloat16)
        assert model[0].weight.device.type == "cuda"
