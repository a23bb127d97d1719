"""Rows to tensors. B: sequences of a micro-batch, T: the longest of them in tokens."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from qtune.data.rows import IGNORED, EncodedRow
from qtune.data.sharing import groups, mask_of, saved

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qtune.data.pictures import Pictures
    from qtune.data.rows import Rows


@dataclass(frozen=True, slots=True)
class Batch:
    """One micro-batch: int64 tensors [B, T] and its counts; `labels` are -100 where not learnt.

    `learnt` [S] are the places in the flattened [B, T] whose next token is a label.

    Padded rows have an attention mask. Packed ones have position ids that begin again at 0 with
    each row, and no mask: transformers isolates the rows by the positions, and an all-ones mask
    would turn that off without a word. Rows that share their first tokens have a mask of all pairs.
    Rows that are classified have one label each: `labels` and `learnt` are [B] then.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor | None
    labels: torch.Tensor
    learnt: torch.Tensor
    tokens: int
    places: list[str]
    position_ids: torch.Tensor | None = None
    token_type_ids: torch.Tensor | None = None
    """[B, T], 1 in the second of two texts; for rows that are classified."""
    pixel_values: torch.Tensor | None = None
    """[B, C, H, W] of rows that are images; `input_ids` are not seen then, but counted."""
    shared: int = 0
    """Tokens that several rows have in common and that are computed for the first of them alone."""
    order: tuple[int, ...] | None = None
    """Where it is another one than they came in: the rows by their number."""
    taught: tuple[torch.Tensor, torch.Tensor] | None = None
    """What a teacher wrote of the learnt places: ids [S, K] and log-probabilities [S, K + 1]."""
    idle: bool = False
    """It goes through the model beside those of other processes, and nothing is learnt of it."""

    @property
    def supervised(self) -> int:
        """Tokens that are learnt."""
        return 0 if self.idle else self.learnt.numel()

    @property
    def computed(self) -> int:
        """Tokens the model computes, padding included."""
        return self.input_ids.numel()

    def inputs(self) -> dict[str, torch.Tensor]:
        """What a model is called with."""
        if self.pixel_values is not None:
            return {"pixel_values": self.pixel_values}
        named = {
            "input_ids": self.input_ids,
            "attention_mask": self.attention_mask,
            "position_ids": self.position_ids,
            "token_type_ids": self.token_type_ids,
        }
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on a device."""
        return self._mapped(lambda tensor: tensor.to(device, non_blocking=True))

    def idled(self) -> Batch:
        """The same batch for nothing but its passes."""
        return replace(self, tokens=0, shared=0, places=[], idle=True)

    def pinned(self) -> Batch:
        """The same batch in host memory that a GPU copies from while the host goes on."""
        return self._mapped(torch.Tensor.pin_memory)

    def _mapped(self, function: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
        mask, positions, kinds = self.attention_mask, self.position_ids, self.token_type_ids
        taught = self.taught
        return replace(
            self,
            input_ids=function(self.input_ids),
            attention_mask=None if mask is None else function(mask),
            labels=function(self.labels),
            learnt=function(self.learnt),
            position_ids=None if positions is None else function(positions),
            token_type_ids=None if kinds is None else function(kinds),
            pixel_values=None if self.pixel_values is None else function(self.pixel_values),
            taught=None if taught is None else (function(taught[0]), function(taught[1])),
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
        learnt=learnt_places(labels),
        tokens=int(attention_mask.sum()),
        places=[row.place for row in rows],
    )


def collate_labelled(rows: Sequence[EncodedRow], *, pad_id: int) -> Batch:
    """As `collate`, each row without its last number, which is that of its label."""
    texts = [replace(row, input_ids=row.input_ids[:-1], labels=row.labels[:-1]) for row in rows]
    batch = collate(texts, pad_id=pad_id)
    assert batch.attention_mask is not None
    kinds = torch.zeros_like(batch.input_ids)
    for number, row in enumerate(rows):
        first = len(row.prompt_ids or ())
        kinds[number, first : len(row.input_ids) - 1] = 1
    return replace(
        batch,
        labels=torch.tensor([row.input_ids[-1] for row in rows]),
        learnt=torch.arange(len(rows)),
        token_type_ids=kinds if kinds.any() else None,
    )


def collate_classified(rows: Rows, numbers: Sequence[int], *, pad_id: int) -> Batch:
    """Some of the rows of a classification, texts or images."""
    chosen = [rows[number] for number in numbers]
    if rows.pictures is not None:
        return collate_pictured(chosen, rows.pictures)
    return collate_labelled(chosen, pad_id=pad_id)


def collate_pictured(rows: Sequence[EncodedRow], pictures: Pictures) -> Batch:
    """Images as pixels, each with its label."""
    input_ids = torch.tensor([row.input_ids[:-1] for row in rows])
    return Batch(
        input_ids=input_ids,
        attention_mask=None,
        labels=torch.tensor([row.input_ids[-1] for row in rows]),
        learnt=torch.arange(len(rows)),
        tokens=input_ids.numel(),
        places=[row.place for row in rows],
        pixel_values=pictures.pixels(rows),
    )


def collate_packed(sequences: Sequence[Sequence[EncodedRow]], *, pad_id: int) -> Batch:
    """Rows behind one another in each sequence; what fills up a shorter one is a row of its own.

    The first token of a row is never a label: the token before it belongs to another row.
    """
    longest = max(sum(len(row.input_ids) for row in rows) for rows in sequences)
    shape = (len(sequences), longest)
    input_ids = torch.full(shape, pad_id, dtype=torch.int64)
    position_ids = torch.zeros(shape, dtype=torch.int64)
    labels = torch.full(shape, IGNORED, dtype=torch.int64)
    for number, rows in enumerate(sequences):
        at = 0
        for row in rows:
            end = at + len(row.input_ids)
            input_ids[number, at:end] = torch.tensor(row.input_ids)
            position_ids[number, at:end] = torch.arange(end - at)
            labels[number, at + 1 : end] = torch.tensor(row.labels[1:])
            at = end
        position_ids[number, at:] = torch.arange(longest - at)
    packed = [row for rows in sequences for row in rows]
    return Batch(
        input_ids=input_ids,
        attention_mask=None,
        labels=labels,
        learnt=learnt_places(labels),
        tokens=sum(len(row.input_ids) for row in packed),
        places=[row.place for row in packed],
        position_ids=position_ids,
    )


def collate_shared(rows: Sequence[EncodedRow]) -> Batch:
    """Rows in one sequence, those that begin alike behind one copy of their beginning."""
    found = groups(rows)
    ids: list[int] = []
    positions: list[int] = []
    labels: list[int] = []
    spans: list[tuple[int, int, int, int]] = []

    def put(row: EncodedRow, begin: int, end: int, prefix: tuple[int, int]) -> None:
        at = len(ids)
        ids.extend(row.input_ids[begin:end])
        positions.extend(range(begin, end))
        # the first token of a span is no label: another row's token stands before it
        labels.extend([IGNORED, *row.labels[begin + 1 : end]])
        spans.append((at, len(ids), *prefix))

    for group in found:
        prefix = (len(ids), len(ids) + group.shared)
        if group.shared:
            put(rows[group.rows[0]], 0, group.shared, (prefix[0], prefix[0]))
        for number in group.rows:
            put(rows[number], group.shared, len(rows[number].input_ids), prefix)
    order = tuple(number for group in found for number in group.rows)
    ordered = [rows[number] for number in order]
    label_ids = torch.tensor([labels])
    return Batch(
        input_ids=torch.tensor([ids]),
        attention_mask=mask_of(len(ids), spans),
        labels=label_ids,
        learnt=learnt_places(label_ids),
        tokens=sum(len(row.input_ids) for row in ordered),
        places=[row.place for row in ordered],
        position_ids=torch.tensor([positions]),
        shared=saved(found),
        order=order,
    )


def learnt_places(labels: torch.Tensor) -> torch.Tensor:
    """Places in the flattened [B, T] that predict a label, the next token of their row: int64."""
    learnt = labels.new_zeros(labels.shape, dtype=torch.bool)
    learnt[:, :-1] = labels[:, 1:] != IGNORED
    return learnt.flatten().nonzero()[:, 0]


def filler_id(tokenizer: Any) -> int:
    """An id to pad with; padding is masked by position, so any id does."""
    pad = tokenizer.pad_token_id
    return int(pad) if pad is not None else 0
