"""The micro-batches of each optimizer step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Protocol, Self, overload

from qtune.data.ahead import ahead, ignore
from qtune.data.batch import (
    Batch,
    collate,
    collate_labelled,
    collate_packed,
    collate_pictured,
    collate_shared,
)
from qtune.data.dealing import WHOLE, Hand
from qtune.data.order import Order
from qtune.data.packing import arranged, pack_evenly
from qtune.data.rows import Rows
from qtune.data.stream import Stream

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from qtune.data.pictures import Pictures
    from qtune.data.rows import EncodedRow
    from qtune.data.stream import Held
    from qtune.recipe.sections import Recipe


class Layout(Protocol):
    """How the rows of one step become micro-batches."""

    @property
    def micro_batch_size(self) -> int:
        """The most sequences of one."""

    @property
    def pad_id(self) -> int:
        """The token behind a sequence that is shorter than another."""

    @property
    def longest(self) -> int:
        """The most tokens of a sequence."""

    def resized(self, micro_batch_size: int) -> Layout:
        """The same layout with micro-batches of another size."""

    def numbers(self, lengths: Sequence[int]) -> list[list[list[int]]]:
        """Rows of each sequence of each micro-batch, by their place in the step."""

    def batch(self, rows: Sequence[EncodedRow], sequences: Sequence[Sequence[int]]) -> Batch:
        """The tensors of one micro-batch of these rows."""


@dataclass(frozen=True)
class Padded:
    """Each row is a sequence, padded to the longest of its micro-batch."""

    micro_batch_size: int
    pad_id: int
    longest: int

    def resized(self, micro_batch_size: int) -> Self:
        """With micro-batches of another size."""
        return replace(self, micro_batch_size=micro_batch_size)

    def numbers(self, lengths: Sequence[int]) -> list[list[list[int]]]:
        """So many rows at a time, the longest first: those of like length pad each other least,
        and the loss of a step is a sum that knows no order."""
        order = list(range(len(lengths)))
        if len(order) > self.micro_batch_size:
            order.sort(key=lambda number: -lengths[number])
        return _split([[number] for number in order], self.micro_batch_size)

    def batch(self, rows: Sequence[EncodedRow], sequences: Sequence[Sequence[int]]) -> Batch:
        """The tensors of one micro-batch."""
        return collate([rows[number] for (number,) in sequences], pad_id=self.pad_id)


@dataclass(frozen=True)
class Labelled(Padded):
    """As `Padded`, with one label a row."""

    def batch(self, rows: Sequence[EncodedRow], sequences: Sequence[Sequence[int]]) -> Batch:
        """The tensors of one micro-batch."""
        return collate_labelled([rows[number] for (number,) in sequences], pad_id=self.pad_id)


@dataclass(frozen=True)
class Pictured(Padded):
    """Images, each with its label; all have the same number of tokens."""

    pictures: Pictures

    def batch(self, rows: Sequence[EncodedRow], sequences: Sequence[Sequence[int]]) -> Batch:
        """The tensors of one micro-batch."""
        return collate_pictured([rows[number] for (number,) in sequences], self.pictures)


@dataclass(frozen=True)
class Packed:
    """The rows of a step behind one another, at most `micro_batch_size` x `capacity` tokens a pass.

    A step learns from the same rows whether they are packed or padded, so packing is a matter of
    speed alone.
    """

    micro_batch_size: int
    pad_id: int
    capacity: int

    @property
    def longest(self) -> int:
        """The most tokens of a sequence."""
        return self.capacity

    def resized(self, micro_batch_size: int) -> Self:
        """With micro-batches of another size."""
        return replace(self, micro_batch_size=micro_batch_size)

    def numbers(self, lengths: Sequence[int]) -> list[list[list[int]]]:
        """The fewest micro-batches, each of short sequences of nearly equal length."""
        size, capacity = self.micro_batch_size, self.capacity
        micro_batches = _packed(lengths, capacity, size)
        return [arranged(lengths, one, most=size, capacity=capacity) for one in micro_batches]

    def batch(self, rows: Sequence[EncodedRow], sequences: Sequence[Sequence[int]]) -> Batch:
        """The tensors of one micro-batch."""
        chosen = [[rows[number] for number in sequence] for sequence in sequences]
        return collate_packed(chosen, pad_id=self.pad_id)


@dataclass(frozen=True)
class Joined(Packed):
    """All rows of a micro-batch in one sequence, without padding: var-len attention computes each
    row by itself, and takes one sequence only."""

    @property
    def longest(self) -> int:
        """The most tokens of a sequence."""
        return self.micro_batch_size * self.capacity

    def numbers(self, lengths: Sequence[int]) -> list[list[list[int]]]:
        """The fewest micro-batches, each of one sequence."""
        micro_batches = _packed(lengths, self.capacity, self.micro_batch_size)
        return [[[row for rows in sequences for row in rows]] for sequences in micro_batches]


@dataclass(frozen=True)
class Shared(Joined):
    """As `Joined`, where rows that begin with the same tokens have them computed once."""

    def batch(self, rows: Sequence[EncodedRow], sequences: Sequence[Sequence[int]]) -> Batch:
        """The tensors of one micro-batch."""
        (sequence,) = sequences
        return collate_shared([rows[number] for number in sequence])


@dataclass(frozen=True)
class Feed:
    """Steps of `batch_size` rows in an order; an epoch's last step may be smaller."""

    rows: Rows
    order: Order
    batch_size: int
    layout: Layout
    tell: Callable[[str], None] = ignore
    """Gets a line when rows do not come."""
    hand: Hand = WHOLE

    def resized(self, micro_batch_size: int) -> Self:
        """The same steps in micro-batches of another size."""
        return replace(self, layout=self.layout.resized(micro_batch_size))

    def steps(self, total_steps: int, start: int = 0) -> Generator[list[Batch]]:
        """The micro-batches of each step from `start` on, without reading the rest; the next
        step's are made while this one's are used."""
        with ahead(self._made(total_steps, start), most=1, tell=self.tell) as steps:
            yield from steps

    def _made(self, total_steps: int, start: int) -> Iterator[list[Batch]]:
        for chosen in self.chosen(total_steps, start=start):
            lengths = self.order.lengths[chosen].tolist()
            yield self.hand.batches(self.layout, self.rows.take(chosen), lengths)

    def chosen(self, total: int, *, start: int = 0) -> Iterator[NDArray[np.int64]]:
        """The row numbers of each step."""
        per_epoch = -(-self.order.size // self.batch_size)
        ordered_epoch = -1
        for step in range(start, total):
            epoch, place = divmod(step, per_epoch)
            if epoch != ordered_epoch:
                order = self.order.of(epoch)
                ordered_epoch = epoch
            yield order[place * self.batch_size : (place + 1) * self.batch_size]

    def fill(self) -> float:
        """Share of real tokens in the tensors of the first epoch, without making them."""
        real = computed = 0
        for chosen in self.chosen(-(-self.order.size // self.batch_size)):
            lengths = self.order.lengths[chosen].tolist()
            real += sum(lengths)
            for sequences in self.layout.numbers(lengths):
                longest = max(sum(lengths[number] for number in one) for one in sequences)
                computed += longest * len(sequences)
        return real / computed


@dataclass(frozen=True)
class StreamFeed:
    """Steps of `batch_size` rows of a stream; the last step of a pass may be smaller.

    A later start reads and encodes the earlier rows again, for nothing else tells where they end,
    but makes no tensors of them.
    """

    stream: Stream
    batch_size: int
    layout: Layout
    max_length: int
    tell: Callable[[str], None] = ignore
    """Gets a line when rows do not come."""
    hand: Hand = WHOLE

    def resized(self, micro_batch_size: int) -> Self:
        """The same steps in micro-batches of another size."""
        return replace(self, layout=self.layout.resized(micro_batch_size))

    def steps(self, total_steps: int, start: int = 0) -> Generator[list[Batch]]:
        """The micro-batches of each step from `start` on; the next step's are made while this
        one's are used, and the window of rows after it is read."""
        if start >= total_steps:
            return
        with ahead(self._made(total_steps, start), most=1, tell=self.tell) as steps:
            yield from steps

    def _made(self, total_steps: int, start: int) -> Iterator[list[Batch]]:
        with ahead(self.stream.windows(), most=1, tell=self.tell) as windows:
            for held in islice(self._chosen(windows), start, total_steps):
                rows = [one.row() for one in held]
                lengths = [len(row.input_ids) for row in rows]
                yield self.hand.batches(self.layout, rows, lengths)

    def _chosen(self, windows: Iterator[list[Held]]) -> Iterator[list[Held]]:
        waiting: list[Held] = []
        for window in windows:
            waiting += window
            while len(waiting) >= self.batch_size:
                yield waiting[: self.batch_size]
                waiting = waiting[self.batch_size :]
            if waiting and not window:  # the end of a pass
                yield waiting
                waiting = []


@overload
def make_feed(
    recipe: Recipe, rows: Rows, *, micro_batch_size: int, pad_id: int, share: bool = False
) -> Feed: ...
@overload
def make_feed(
    recipe: Recipe, rows: Rows | Stream, *, micro_batch_size: int, pad_id: int, share: bool = False
) -> Feed | StreamFeed: ...
def make_feed(
    recipe: Recipe,
    rows: Rows | Stream,
    *,
    micro_batch_size: int,
    pad_id: int,
    share: bool = False,
) -> Feed | StreamFeed:
    """The feed that a recipe asks for; `share`: packed rows may share their first tokens."""
    padded = Labelled if recipe.model.task == "classification" else Padded
    layout: Layout = padded(micro_batch_size, pad_id, recipe.data.max_length)
    if recipe.data.packing:
        var_len = recipe.model.attn_implementation == "flash_attention_2"
        kind = Shared if share else Joined if var_len else Packed
        layout = kind(micro_batch_size, pad_id, capacity=recipe.data.max_length)
    if isinstance(rows, Rows) and rows.pictures is not None:
        layout = Pictured(micro_batch_size, pad_id, rows.pictures.tokens, rows.pictures)
    if isinstance(rows, Stream):
        return StreamFeed(rows, recipe.train.batch_size, layout, recipe.data.max_length)
    order = Order.of_recipe(recipe, lengths=rows.lengths, sources=rows.sources)
    return Feed(rows=rows, order=order, batch_size=recipe.train.batch_size, layout=layout)


def _packed(lengths: Sequence[int], capacity: int, size: int) -> list[list[list[int]]]:
    """Sequences of at most `capacity` tokens, so many a micro-batch, the longest first."""
    sequences = pack_evenly(lengths, capacity)
    sequences.sort(key=lambda rows: -sum(lengths[number] for number in rows))
    return _split(sequences, size)


def _split(sequences: list[list[int]], size: int) -> list[list[list[int]]]:
    return [sequences[at : at + size] for at in range(0, len(sequences), size)]
