"""The table of what was loaded, counted by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from qtune.models import inventory
from tests.models.workshop import IDS, adapt, load_folder
from tests.tiny import save_tiny, tiny_llama

if TYPE_CHECKING:
    from pathlib import Path

# Two layers of q, k, v, o (64x64, 32x64, 32x64, 64x64) and gate, up, down (64x128).
LINEAR = 2 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 64 * 128)
EMBEDDINGS, NORMS = 2 * 320 * 64, 5 * 64
# RoPE keeps its frequencies twice, 8 of them, in float32.
BUFFERS = 2 * 8 * 4


def test_rows_by_hand(whole: Path) -> None:
    rows = load_folder(whole, compute_dtype="bfloat16").inventory.to_dict()
    blocks = LINEAR // 64
    # Each of 14 weights: a nested constant for each 256 blocks, and an offset.
    sizes = [4096, 2048, 2048, 4096, 8192, 8192, 8192] * 2
    nested = sum(-(-size // 64 // 256) * 4 + 4 for size in sizes)
    four_bit = {"tensors": 14, "parameters": LINEAR, "bytes": LINEAR // 2 + blocks + nested}
    assert rows["4-bit"] == four_bit
    dense = EMBEDDINGS + NORMS
    assert rows["16-bit"] == {
        "tensors": 2 + 5 + 2,
        "parameters": dense,
        "bytes": 2 * dense + BUFFERS,
    }
    assert set(rows) == {"4-bit", "16-bit"}


def test_int8_and_tied_heads(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path, tiny_llama(tie_word_embeddings=True))
    base = load_folder(folder, bits=8)
    row = base.inventory.row("8-bit")
    rows_of_weights = 2 * (64 + 32 + 32 + 64 + 128 + 128 + 64)
    assert (row.parameters, row.bytes) == (LINEAR, LINEAR + 4 * rows_of_weights)
    assert base.inventory.parameters == LINEAR + EMBEDDINGS // 2 + NORMS
    base.model(IDS)
    assert inventory(base.model) == base.inventory


def test_what_is_trainable_is_counted_after_it_is_there(whole: Path) -> None:
    base = load_folder(whole)
    assert base.inventory.row("trainable").parameters == 0
    trainable = adapt(base.model)
    row = inventory(base.model).row("trainable")
    assert row.tensors == len(trainable) == 8
    assert row.parameters == 2 * (4 * (64 + 64) + 4 * (128 + 64))
    assert row.bytes == 4 * row.parameters
    assert inventory(base.model).row("4-bit") == base.inventory.row("4-bit")
    assert base.inventory.bytes == sum(r["bytes"] for r in base.inventory.to_dict().values())


def test_the_count_is_that_of_the_model(whole: Path) -> None:
    parameters = sum(parameter.numel() for parameter in tiny_llama().parameters())
    for bits in (4, 8, 16):
        assert load_folder(whole, bits=bits).inventory.parameters == parameters
    assert isinstance(load_folder(whole).model.lm_head.weight, torch.nn.Parameter)
