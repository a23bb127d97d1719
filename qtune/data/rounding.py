"""Micro-batches of few lengths, for a CPU: `qtune.ops.grid` says why."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import torch
from torch.nn.functional import pad

from qtune.data.rows import IGNORED
from qtune.ops.grid import rounded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qtune.data.batch import Batch
    from qtune.data.feed import Layout
    from qtune.data.rows import EncodedRow


@dataclass(frozen=True)
class Rounded:
    """A layout whose sequences have one of few lengths."""

    layout: Layout

    @property
    def micro_batch_size(self) -> int:
        """The most sequences of a micro-batch."""
        return self.layout.micro_batch_size

    @property
    def pad_id(self) -> int:
        """The token behind a sequence that is shorter than another."""
        return self.layout.pad_id

    @property
    def longest(self) -> int:
        """The most tokens of a sequence."""
        return self.layout.longest

    def resized(self, micro_batch_size: int) -> Self:
        """With micro-batches of another size."""
        return replace(self, layout=self.layout.resized(micro_batch_size))

    def numbers(self, lengths: Sequence[int]) -> list[list[list[int]]]:
        """Rows of each sequence of each micro-batch, by their place in the step."""
        return self.layout.numbers(lengths)

    def batch(self, rows: Sequence[EncodedRow], sequences: Sequence[Sequence[int]]) -> Batch:
        """The tensors of one micro-batch."""
        batch = self.layout.batch(rows, sequences)
        length = rounded(batch.input_ids.shape[1], self.longest)
        return lengthened(batch, length, pad_id=self.pad_id)


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
