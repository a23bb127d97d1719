"""A streamed weight is in its slot before Triton's kernel unfolds it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from qtune import models
from qtune.models import quantizing
from qtune.ops.element_wise import taking
from qtune.ops.nf4 import bits_of, weight_of
from qtune.recipe.inputs import ModelSection, QuantizationSection
from tests.ops.triton.places import DEVICE, needs_kernels
from tests.tiny import save_tiny

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    *needs_kernels,
    pytest.mark.skipif(DEVICE.type != "cpu", reason="this model is on a CPU"),
]


def loaded(folder: Path, **given: Any) -> Any:
    return models.load(
        ModelSection(name_or_path=str(folder)),
        QuantizationSection(),
        device=torch.device("cpu"),
        activations="none",
        **given,
    ).model


def test_streamed_is_resident(tmp_path: Path) -> None:
    save_tiny(tmp_path / "base")
    section = ModelSection(name_or_path=str(tmp_path / "base"))
    prepared = quantizing.prepare(section, QuantizationSection())
    quantizing.write(prepared, tmp_path / "copy", source="base")
    resident, streamed = (
        {
            name: module
            for name, module in loaded(tmp_path / "copy", base=base).named_modules()
            if bits_of(module) == 4
        }
        for base in ("resident", "stream")
    )
    assert resident.keys() == streamed.keys()
    for name in reversed(resident):
        with taking({"nf4"}):
            found = weight_of(streamed[name])
        assert torch.equal(found, weight_of(resident[name])), name
