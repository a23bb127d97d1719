"""Micro-batches of few lengths, for a CPU: `qtune.ops.grid` says why."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import pad

from qtune.data.rows import IGNORED
from qtune.data.wrapped import Wrapped
from qtune.ops.grid import rounded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qtune.data.batch import Batch
    from qtune.data.rows import EncodedRow


class Rounded(Wrapped):
    """A layout whose sequences have one of few lengths."""

    def batch(self, rows: Sequence[EncodedRow], sequences: Sequence[Sequence[int]]) -> Batch:
        """The tensors of one micro-batch."""
        batch = self.layout.batch(rows, sequences)
        return on_grid(batch, longest=self.longest, pad_id=self.pad_id)


def placed(batch: Batch, device: torch.device, *, longest: int, pad_id: int) -> Batch:
    """The same batch on a device; on a CPU it has one of few lengths, at most `longest`."""
    if device.type == "cpu":
        batch = on_grid(batch, longest=longest, pad_id=pad_id)
    return batch.to(device)


def on_grid(batch: Batch, *, longest: int, pad_id: int) -> Batch:
    """The same batch [B, T] with the next of few lengths, at most `longest`."""
    return lengthened(batch, rounded(batch.input_ids.shape[1], longest), pad_id=pad_id)


def lengthened(batch: Batch, length: int, *, pad_id: int) -> Batch:
    """The same batch [B, T] as [B, length]: what is added is padding, or a row of its own.

    Images stay: all are as long.
    """
    rows, before = batch.input_ids.shape
    more = length - before
    if not more or batch.pixel_values is not None:
        return batch
    mask, positions, kinds = batch.attention_mask, batch.position_ids, batch.token_type_ids
    one_label = batch.labels.dim() == 1
    places = batch.learnt
    if not one_label:
        places = places + torch.div(places, before, rounding_mode="floor") * more
    return replace(
        batch,
        input_ids=pad(batch.input_ids, (0, more), value=pad_id),
        labels=batch.labels if one_label else pad(batch.labels, (0, more), value=IGNORED),
        learnt=places,
        attention_mask=None if mask is None else _wider(mask, more),
        position_ids=None if positions is None else _further(positions, rows, more),
        token_type_ids=None if kinds is None else pad(kinds, (0, more)),
    )


def _wider(mask: torch.Tensor, more: int) -> torch.Tensor:
    """[B, T] with nothing to see behind; [1, 1, T, T] with a row that sees itself alone."""
    if mask.dim() == 2:
        return pad(mask, (0, more))
    wide = pad(mask, (0, more, 0, more))
    wide[..., -more:, -more:] = torch.ones(more, more, dtype=torch.bool).tril()
    return wide


def _further(positions: torch.Tensor, rows: int, more: int) -> torch.Tensor:
    behind = torch.arange(more).expand(rows, more)
    return torch.cat([positions, behind], dim=1)
