"""Micro-batches of few lengths: the grid, and that nothing but the shape changes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from qtune.data import EncodedRow
from qtune.data.batch import Batch, collate, collate_labelled, collate_packed, collate_shared
from qtune.data.feed import Joined, Packed, Padded
from qtune.data.rounding import Rounded, lengthened
from qtune.data.rows import IGNORED
from qtune.losses import CausalLoss
from qtune.models import fuse
from tests.tiny import tiny_llama

PREFIX = list(range(100, 112))


def row(ids: list[int], prompt: int) -> EncodedRow:
    return EncodedRow(input_ids=ids, labels=[IGNORED] * prompt + ids[prompt:], place="x:1")


ROWS = [row([*PREFIX, 1, 2, 3], 13), row([*PREFIX, 4, 5], 13), row([7, 8, 9, 10], 1)]


@pytest.mark.parametrize(
    "batch",
    [
        collate(ROWS, pad_id=0),
        collate_packed([[ROWS[0], ROWS[2]], [ROWS[1]]], pad_id=0),
        collate_shared(ROWS),
    ],
    ids=["padded", "packed", "shared"],
)
def test_losses_and_gradients_stay(batch: Batch) -> None:
    longer = lengthened(batch, batch.input_ids.shape[1] + 11, pad_id=3)
    assert longer.input_ids.shape == (len(batch.input_ids), batch.input_ids.shape[1] + 11)
    assert (longer.tokens, longer.supervised) == (batch.tokens, batch.supervised)
    found = []
    for one in (batch, longer):
        model = tiny_llama()
        fuse(model.requires_grad_(False), "fused", "none")
        weight = model.model.layers[0].self_attn.v_proj.weight.requires_grad_()
        total = CausalLoss(chunk_size=4)(model, one).sum
        total.backward()
        found.append((total.detach(), weight.grad))
    (total, gradient), (total_longer, gradient_longer) = found
    torch.testing.assert_close(total_longer, total, rtol=1e-6, atol=0)
    torch.testing.assert_close(gradient_longer, gradient, rtol=1e-5, atol=1e-6)


def test_a_row_with_one_label_keeps_it() -> None:
    rows = [EncodedRow([5, 6, 7, 1], [IGNORED] * 3 + [1], "x:1", prompt_ids=[5])]
    longer = lengthened(collate_labelled(rows, pad_id=0), 8, pad_id=0)
    assert longer.labels.tolist() == [1]
    assert longer.learnt.tolist() == [0]
    assert longer.attention_mask is not None
    assert longer.attention_mask.tolist() == [[1, 1, 1, 0, 0, 0, 0, 0]]
    assert longer.token_type_ids is not None
    assert longer.token_type_ids.tolist() == [[0, 1, 1, 0, 0, 0, 0, 0]]


def test_a_layout_rounds_within_its_bounds() -> None:
    rows = [row(list(range(1, 40)), 3)]
    assert Rounded(Padded(2, 0, 512)).batch(rows, [[0]]).input_ids.shape == (1, 48)
    assert Rounded(Padded(2, 0, 39)).batch(rows, [[0]]).input_ids.shape == (1, 39)
    assert Rounded(Packed(2, 0, 39)).batch(rows, [[0]]).input_ids.shape == (1, 39)
    joined = Rounded(Joined(2, 0, 39))
    assert joined.batch(rows, [[0]]).input_ids.shape == (1, 48), "two sequences in one"
    assert joined.resized(1).batch(rows, [[0]]).input_ids.shape == (1, 39)
    assert joined.numbers([3, 4]) == Joined(2, 0, 39).numbers([3, 4])


def test_images_are_all_as_long() -> None:
    batch = replace(collate(ROWS, pad_id=0), pixel_values=torch.zeros(3, 3, 8, 8))
    assert lengthened(batch, 99, pad_id=0) is batch
