"""The micro-batch of a run that takes the most memory, found without making the others."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from qtune.data.batch import learnt_places
from qtune.data.feed import Feed
from qtune.data.rows import EncodedRow

if TYPE_CHECKING:
    from qtune.data.batch import Batch
    from qtune.data.feed import StreamFeed


@dataclass(frozen=True)
class Heaviest:
    """A micro-batch, and its share of the tokens that a process computes in the steps."""

    batch: Batch
    share: float


def heaviest(feed: Feed | StreamFeed, total_steps: int, *, start: int = 0) -> Heaviest:
    """The micro-batch with the most tokens, padding included, of the steps from `start` on, and
    among equals the one with the longest sequence; of several processes whoever has it, for a
    process may have no row in the steps that are left.

    As many of its tokens are learnt as of any other micro-batch, for the logits count, too. Of a
    stream nothing is known before: there it is made up, as large as one may be.
    """
    if isinstance(feed, Feed):
        return _found(feed, total_steps, start)
    return _made_up(feed, total_steps - start)


def _found(feed: Feed, total_steps: int, start: int) -> Heaviest:
    supervised = feed.rows.supervised
    most, where, learnt, all_tokens = (0, 0), None, 0, 0
    for chosen in feed.chosen(total_steps, start=start):
        lengths, counts = feed.order.lengths[chosen].tolist(), supervised[chosen].tolist()
        for sequences in feed.hand.everyones(feed.layout, lengths):
            longest = max(sum(lengths[row] for row in rows) for rows in sequences)
            tokens = longest * len(sequences)
            all_tokens += tokens
            learnt = max(learnt, sum(counts[row] for rows in sequences for row in rows))
            if (tokens, longest) > most:
                most, where = (tokens, longest), (chosen, sequences)
    assert where is not None, "no step is left"
    chosen, sequences = where
    batch = feed.layout.batch(feed.rows.take(chosen), sequences)
    share = most[0] * feed.hand.seat.size / all_tokens
    return Heaviest(_learning(batch, learnt), share)


def _made_up(feed: StreamFeed, steps: int) -> Heaviest:
    """Rows of max_length tokens that are learnt but for the first, and have no token in common."""
    processes = feed.hand.seat.size
    size = min(feed.layout.micro_batch_size, -(-feed.batch_size // processes))
    rows = [_longest_row(number, feed.max_length) for number in range(size)]
    sequences, *_ = feed.layout.numbers([feed.max_length] * size)
    share = size * processes / (feed.batch_size * steps)
    return Heaviest(feed.layout.batch(rows, sequences), share)


def _longest_row(number: int, length: int) -> EncodedRow:
    ids = [number] * length
    return EncodedRow(input_ids=ids, labels=ids, place="the longest row there may be")


def _learning(batch: Batch, most: int) -> Batch:
    """The batch with `most` learnt tokens, or as many as it can have."""
    if batch.supervised >= most or batch.labels.ndim == 1:  # a label a row is no position's
        return batch
    places = learnt_places(batch.input_ids)[:most]
    taught = batch.taught
    if taught is not None:  # any will do: only their size counts
        again = torch.arange(len(places)) % batch.supervised
        taught = (taught[0][again], taught[1][again])
    return replace(batch, labels=batch.input_ids, learnt=places, taught=taught)
