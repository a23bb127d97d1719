"""Weights kept unfolded change no bit of what is computed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from qtune.models import keep_unfolded
from qtune.models.fuse import fuse
from qtune.ops import nf4
from tests.models.workshop import IDS, adapt, gradients, load_folder, logits

if TYPE_CHECKING:
    from pathlib import Path


def prepared(folder: Path, layers: int) -> tuple[Any, int]:
    model = load_folder(folder).model
    return model, keep_unfolded(model, layers)


@pytest.mark.parametrize("layers", [1, 2, 99])
def test_the_bytes_are_those_of_the_layers(folder: Path, layers: int) -> None:
    # a layer of the tiny Llama: q and o 64 x 64, k and v 64 x 32, three of 64 x 128; fp32
    one = 4 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128)
    model, size = prepared(folder, layers)
    assert size == one * min(layers, 2)
    assert "dense" not in " ".join(model.state_dict())


def test_the_logits_and_gradients_are_the_same_bits(folder: Path) -> None:
    found = []
    for layers in (0, 1, 2):
        model, _ = prepared(folder, layers)
        before = logits(model)
        found.append([before, *gradients(model, adapt(model))])
    for other in found[1:]:
        assert all(torch.equal(one, two) for one, two in zip(found[0], other, strict=True))


def test_fused_blocks_use_them_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts, found = [], []
    original, unfolded = nf4.dequantize, []
    monkeypatch.setattr(nf4, "dequantize", lambda *g: unfolded.append(1) or original(*g))
    for layers in (0, 2):
        model, _ = prepared(folder, layers)
        fuse(model, "fused", "none")
        unfolded.clear()
        embedded = model.get_input_embeddings()(IDS).detach().requires_grad_()
        made = model(inputs_embeds=embedded, use_cache=False).logits
        made.sum().backward()
        counts.append(len(unfolded))
        found.append((made, embedded.grad))
    assert counts == [2 * 2 * 7, 0]
    assert all(torch.equal(one, two) for one, two in zip(*found, strict=True))
