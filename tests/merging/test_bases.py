"""Weights read in blocks of rows are, to the bit, those of the whole tensor."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

import pytest
import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from qtune.errors import ModelError
from qtune.merging.bases import OriginalBase, Rows, TrainedBase
from qtune.merging.blueprint import blueprint
from qtune.recipe.inputs import ModelSection, QuantizationSection
from tests.merging.test_merge import trained_weights
from tests.merging.workshop import NF4, UP, tensors
from tests.tiny import save_tiny, tiny_llama

if TYPE_CHECKING:
    from pathlib import Path

ELEMENTS = 300  # of a block: some rows of each weight


@pytest.mark.parametrize("step", [1, 4])
@pytest.mark.parametrize("count", [0, 1, 8, 187, 2048])
@pytest.mark.parametrize("most", [1, 7, 186])
def test_blocks_are_even(count: int, step: int, most: int) -> None:
    rows = Rows((count, 10), lambda start, stop: torch.zeros(stop - start, 10), step)
    spans = list(rows.spans(10 * most))
    assert [row for start, stop in spans for row in range(start, stop)] == list(range(count))
    sizes = [stop - start for start, stop in spans]
    assert all(size <= max(most, step) for size in sizes)
    assert all(start % step == 0 for start, _ in spans)
    assert len(set(sizes[:-1])) <= 1
    assert len(sizes) == ceil(ceil(count / step) / max(1, most // step))  # no more than needed


@pytest.mark.parametrize(
    "quantization",
    [
        NF4,
        QuantizationSection(double_quant=False),
        QuantizationSection(quant_type="fp4"),
        QuantizationSection(bits=8),
        QuantizationSection(bits=16),
    ],
    ids=["nf4-double", "nf4-bf16", "fp4", "int8", "16-bit"],
)
@pytest.mark.parametrize("width", [64, 48], ids=["whole-blocks", "rows-end-in-blocks"])
def test_blocks_of_what_is_quantised_when_loaded(
    tmp_path: Path, quantization: QuantizationSection, width: int
) -> None:
    base = save_tiny(tmp_path / "base", tiny_llama(hidden_size=width, intermediate_size=72))
    section = ModelSection(name_or_path=str(base))
    rows = TrainedBase(known := blueprint(base, section, quantization), quantization)
    for name, wanted in trained_weights(base, quantization).items():
        if name not in known.stored:
            continue
        each = rows.rows(name)
        spans = list(each.spans(ELEMENTS))
        found = torch.cat([each.read(*span) for span in spans])
        assert found.dtype == wanted.dtype
        assert torch.equal(found, wanted), name
        if wanted.ndim > 1 and each.step == 1:
            assert len(spans) > 2
            start, stop = spans[-1]
            assert torch.equal(each.read(start, stop), wanted[start:stop])


@pytest.mark.parametrize("double", [True, False])
def test_blocks_of_what_is_stored_quantised(tmp_path: Path, double: bool) -> None:
    save_tiny(tmp_path / "dense", tiny_llama(hidden_size=48, intermediate_size=72))
    config = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=double
    )
    AutoModelForCausalLM.from_pretrained(
        tmp_path / "dense", dtype=torch.float32, quantization_config=config
    ).save_pretrained(tmp_path / "packed")
    quantization = QuantizationSection(compute_dtype="float32", double_quant=double)
    section = ModelSection(name_or_path=str(tmp_path / "packed"))
    known = blueprint(tmp_path / "packed", section, quantization)
    rows = TrainedBase(known, quantization)
    for name, wanted in trained_weights(tmp_path / "packed", quantization).items():
        each = rows.rows(name)
        found = torch.cat([each.read(*span) for span in each.spans(ELEMENTS)])
        assert torch.equal(found, wanted), name


def test_blocks_of_the_stored_weights(tmp_path: Path) -> None:
    base = save_tiny(tmp_path / "base", max_shard_size="100KB")
    known = blueprint(base, ModelSection(name_or_path=str(base)), NF4)
    for name, wanted in tensors(base).items():
        each = OriginalBase(known).rows(name)
        found = torch.cat([each.read(*span) for span in each.spans(ELEMENTS)])
        assert torch.equal(found, wanted), name


def test_a_broken_number_is_named_by_its_place(tmp_path: Path) -> None:
    model = tiny_llama()
    with torch.no_grad():
        model.get_parameter(UP)[100, 7] = float("nan")
    base = save_tiny(tmp_path / "base", model)
    rows = TrainedBase(blueprint(base, ModelSection(name_or_path=str(base)), NF4), NF4)
    with pytest.raises(ModelError, match=rf"element {100 * 64 + 7} of {128 * 64}"):
        rows.rows(UP)
