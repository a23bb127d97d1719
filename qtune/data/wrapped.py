"""A layout around another."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qtune.data.batch import Batch
    from qtune.data.feed import Layout
    from qtune.data.rows import EncodedRow


@dataclass(frozen=True)
class Wrapped:
    """Another layout as it is; what is made of its batches is said by overriding `batch`."""

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
        return self.layout.batch(rows, sequences)
