"""Rows that are read, encoded and learnt in one go: no first pass, no length, nothing kept.

The rows come in windows. Those of a window are shuffled by its place in the stream, so the order
is a pure function of the seed and of where a row stands, and few rows are in memory.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from itertools import count, islice
from typing import TYPE_CHECKING, NamedTuple

from qtune.data import content
from qtune.data.account import heading, refuse_unlearnable
from qtune.data.checking import Checked, examples_of
from qtune.data.encoding import Encoding, Setting, Task
from qtune.data.faults import Faults
from qtune.data.formats.detect import detect
from qtune.data.order import permuted
from qtune.data.rows import IGNORED, EncodedRow
from qtune.data.source import label, read
from qtune.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from transformers import PreTrainedTokenizerBase

    from qtune.data.report import SourceReport
    from qtune.data.row import Example
    from qtune.data.rows import Encoded
    from qtune.recipe.inputs import SourceSection
    from qtune.recipe.sections import Recipe

# Few, so that a faulty row stops the run near where it stands; many enough for the tokenizer.
_BATCH = 64
_ROWS_TO_JUDGE = 1000


class Held(NamedTuple):
    """An encoded row while it waits in memory: 5 bytes a token."""

    place: str
    ids: array[int]
    learnt: bytes

    @classmethod
    def of(cls, row: Encoded) -> Held:
        """A row as the encoder makes it."""
        return cls(row.place, array("i", row.ids), bytes(row.learnt))

    def row(self) -> EncodedRow:
        """The row as lists, for a batch."""
        ids = self.ids.tolist()
        labels = [token if on else IGNORED for token, on in zip(ids, self.learnt, strict=True)]
        return EncodedRow(ids, labels, self.place)


@dataclass(frozen=True)
class Stream:
    """The training rows of a recipe with data.streaming."""

    recipe: Recipe
    encoding: Encoding
    sources: tuple[Checked, ...]
    reports: tuple[SourceReport, ...]
    """What became of the rows so far, those read ahead included."""

    def __len__(self) -> int:
        """The rows that a run takes: a stream has no length of its own."""
        return (self.recipe.train.max_steps or 0) * self.recipe.train.batch_size

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the bytes of the files, for a hub data set over what names it, and over
        all that shapes and orders the rows."""
        data = self.recipe.data
        parts = [
            content.sources_of(data.train),
            content.settings_of(self.recipe, self.encoding.setting.tokenizer),
            data.model_dump(include={"shuffle", "shuffle_buffer", "mix"}),
            self.recipe.train.seed,
        ]
        return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()

    def windows(self) -> Iterator[list[Held]]:
        """All rows, again and again, in windows; an empty one ends each pass over the sources."""
        data, seed = self.recipe.data, self.recipe.train.seed
        size = data.shuffle_buffer if data.shuffle else _BATCH
        for epoch in count():
            rows = self._pass()
            for number in count():
                window = [Held.of(row) for row in islice(rows, size)]
                if not window:
                    break
                order = permuted(len(window), seed, epoch, number) if data.shuffle else None
                yield window if order is None else [window[place] for place in order]
            refuse_unlearnable(self.reports, data.max_length)
            yield []

    def first(self) -> EncodedRow:
        """The first row; what is wrong with the first rows of all sources is a `DataError`."""
        faults = Faults()
        rows: list[Encoded] = []
        for number, report in enumerate(self.reports):
            scratch = deepcopy(report)
            try:
                rows += islice(self._source(number, scratch), 1)
            except DataError as error:
                faults.add_error(error)
            if not rows and not faults.count:
                refuse_unlearnable([scratch], self.recipe.data.max_length)
        faults.raise_if_any()
        return Held.of(rows[0]).row()

    def _pass(self) -> Iterator[Encoded]:
        """The rows of all sources once, one after the other or in turn."""
        waiting = [self._source(number, report) for number, report in enumerate(self.reports)]
        if self.recipe.data.mix == "concat":
            for rows in waiting:
                yield from rows
            return
        while waiting:
            for rows in list(waiting):
                row = next(rows, None)
                if row is None:
                    waiting.remove(rows)
                else:
                    yield row

    def _source(self, number: int, report: SourceReport) -> Iterator[Encoded]:
        rows = _examples(self.sources[number])
        while batch := list(islice(rows, _BATCH)):
            faults = Faults()
            encoded = self.encoding.rows(Task(number, batch), report, faults)
            faults.raise_if_any()
            if report.read >= _ROWS_TO_JUDGE:
                refuse_unlearnable([report], self.recipe.data.max_length)
            yield from encoded


def open_stream(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> Stream:
    """The stream of a recipe, its formats read off the first row of each source."""
    sources = tuple(_opened(source) for source in recipe.data.train)
    encoding = Encoding(Setting.of(sources, recipe, tokenizer))
    reports = tuple(map(heading, sources, encoding.templates))
    return Stream(recipe, encoding, sources, reports)


def _opened(source: SourceSection) -> Checked:
    faults = Faults()
    row = next(iter(read(source, faults, streaming=True)), None)
    faults.raise_if_any()
    if row is None:
        raise DataError("no rows", place=label(source), hint="the file is empty")
    return Checked(source, detect(row, source), 0, None, Faults())


def _examples(checked: Checked) -> Iterator[tuple[Example, ...]]:
    """The examples of each row; the first faulty row ends them."""
    faults = Faults()
    for row in read(checked.source, faults, streaming=True):
        faults.raise_if_any()
        yield examples_of(row, checked.detected, checked.source, None)
    faults.raise_if_any()
