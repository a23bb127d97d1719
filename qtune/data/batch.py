"""Rows to tensors. B: rows of a micro-batch, T: its longest row in tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from qtune.data.rows import IGNORED, EncodedRow, Rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@dataclass(frozen=True, slots=True)
class Batch:
    """One micro-batch: int64 tensors [B, T] and its counts; `labels` are -100 where not learnt."""

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    labels: torch.Tensor
    tokens: int
    supervised: int
    places: list[str]

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on a device."""
        return Batch(
            self.input_ids.to(device, non_blocking=True),
            self.attention_mask.to(device, non_blocking=True),
            self.labels.to(device, non_blocking=True),
            self.tokens,
            self.supervised,
            self.places,
        )


def collate(rows: Sequence[EncodedRow], *, pad_id: int) -> Batch:
    """Pad on the right; padding is masked by position, so a pad id that is also the end of
    sequence hides nothing."""
    longest = max(len(row.input_ids) for row in rows)
    shape = (len(rows), longest)
    input_ids = torch.full(shape, pad_id, dtype=torch.int64)
    attention_mask = torch.zeros(shape, dtype=torch.int64)
    labels = torch.full(shape, IGNORED, dtype=torch.int64)
    for number, row in enumerate(rows):
        size = len(row.input_ids)
        input_ids[number, :size] = torch.tensor(row.input_ids)
        attention_mask[number, :size] = 1
        labels[number, :size] = torch.tensor(row.labels)
    return Batch(
        input_ids=input_ids,
        attention_mask=attention_mask,
        labels=labels,
        tokens=int(attention_mask.sum()),
        supervised=int((labels[:, 1:] != IGNORED).sum()),
        places=[row.place for row in rows],
    )


def filler_id(tokenizer: Any) -> int:
    """An id to pad with; padding is masked by position, so any id does."""
    pad = tokenizer.pad_token_id
    return int(pad) if pad is not None else 0


def epoch_order(count: int, *, seed: int, epoch: int, shuffle: bool) -> list[int]:
    """The order of the rows in an epoch: a pure function of its arguments.

    RandomState is the one numpy stream that is promised never to change.
    """
    if not shuffle:
        return list(range(count))
    generator = np.random.RandomState(np.random.MT19937(np.random.SeedSequence([seed, epoch])))
    order: list[int] = generator.permutation(count).tolist()
    return order


def step_batches(
    rows: Rows,
    *,
    batch_size: int,
    micro_batch_size: int,
    seed: int,
    shuffle: bool,
    total_steps: int,
    start_step: int = 0,
    pad_id: int = 0,
) -> Iterator[list[Batch]]:
    """The micro-batches of each optimizer step from `start_step` on, without replaying the rest.

    An epoch has ceil(rows / batch_size) steps; its last one may be smaller.
    """
    per_epoch = -(-len(rows) // batch_size)
    order: list[int] = []
    ordered_epoch = -1
    for step in range(start_step, total_steps):
        epoch, place = divmod(step, per_epoch)
        if epoch != ordered_epoch:
            order = epoch_order(len(rows), seed=seed, epoch=epoch, shuffle=shuffle)
            ordered_epoch = epoch
        chosen = order[place * batch_size : (place + 1) * batch_size]
        yield [
            collate([rows[n] for n in chosen[at : at + micro_batch_size]], pad_id=pad_id)
            for at in range(0, len(chosen), micro_batch_size)
        ]
