"""Fused blocks with Triton's kernels give the plain gradients, in every family."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from qtune.ops.element_wise import FAMILIES as KERNELS
from qtune.ops.element_wise import taking
from tests.models.test_fuse import FAMILIES, folder, gradients, learner, packed, padded, worst
from tests.ops.triton.places import DEVICE, needs_kernels

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["folder"]
pytestmark = [
    *needs_kernels,
    pytest.mark.skipif(DEVICE.type != "cpu", reason="these models are on a CPU"),
]


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "gpt2"])
def test_plain_gradients(folder: Path, family: str) -> None:
    inputs = padded() if family == "llama" else packed((9, 1, 4))
    expected = gradients(*learner(folder, family, kernels="plain", dropout=0.0)[:2], inputs)
    policy = "selective" if family == "qwen3" else "none"
    model, method, _ = learner(folder, family, kernels="triton", policy=policy, dropout=0.0)
    with taking(KERNELS):
        found = gradients(model, method, inputs)
    assert worst(found, expected) < 3e-6
