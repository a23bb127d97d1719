"""What a step needs: a tiny NF4 base with LoRA, and uneven rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from qtune import methods, models
from qtune.data import EncodedRow, Rows
from qtune.data.feed import Feed, Packed, Padded
from qtune.data.order import Order
from qtune.data.rows import IGNORED, Encoded, RowStore
from qtune.methods.base import Method
from qtune.recipe.inputs import ModelSection, QuantizationSection
from qtune.recipe.methods import LoraConfig
from qtune.recipe.steps import ActivationPolicy

LENGTHS = (12, 5, 9, 17, 3, 8, 11, 6, 14, 4, 10, 7, 19, 5, 13, 6)
VOCABULARY = 259


def learner(
    folder: Path, *, bits: int = 4, activations: ActivationPolicy = "none"
) -> tuple[Any, Method]:
    """The model in train mode and the method on it, with its adapters moved off their start."""
    base = models.load(
        ModelSection(name_or_path=str(folder)),
        QuantizationSection(bits=bits, compute_dtype="float32"),
        device=torch.device("cpu"),
        activations=activations,
    )
    method = methods.create(LoraConfig(rank=4, alpha=8.0, dropout=0.0), seed=0)
    method.attach(base.model)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in method.parameters().values():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return base.model, method


def uneven_rows() -> list[EncodedRow]:
    """Sixteen rows of many lengths; a third of each is prompt."""
    generator = torch.Generator().manual_seed(4)
    rows = []
    for number, length in enumerate(LENGTHS):
        ids = torch.randint(3, VOCABULARY, (length,), generator=generator).tolist()
        prompt = max(1, length // 3)
        labels = [-100] * prompt + ids[prompt:]
        rows.append(EncodedRow(input_ids=ids, labels=labels, place=f"rows.jsonl:{number + 1}"))
    return rows


def feed_of(
    rows: list[EncodedRow], *, batch_size: int, micro_batch_size: int, capacity: int | None = None
) -> Feed:
    """A feed over rows in memory, padded, or packed into sequences of `capacity` tokens."""
    store = RowStore()
    for number, row in enumerate(rows, 1):
        learnt = [label != IGNORED for label in row.labels]
        store.add(Encoded(file="rows.jsonl", number=number, ids=row.input_ids, learnt=learnt))
    held = Rows(store, range(len(rows)))
    layout = Padded(micro_batch_size, 2, 512)
    packed = Packed(micro_batch_size, 2, capacity) if capacity else layout
    order = Order(held.lengths, held.sources, seed=0, batch_size=batch_size)
    return Feed(rows=held, order=order, batch_size=batch_size, layout=packed)


def gradients(method: Method) -> dict[str, torch.Tensor]:
    """A copy of every gradient."""
    return {name: parameter.grad.clone() for name, parameter in method.parameters().items()}
