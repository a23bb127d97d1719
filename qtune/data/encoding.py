"""Batches of examples to blocks of encoded rows, each with the account of what became of it.

A batch knows nothing of the others, so it may be encoded here or by another process: the rows, the
counts and the faults are the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from qtune.data.encode.encoder import Encoder
from qtune.data.encode.labelled import DESCRIPTION, LabelledEncoder
from qtune.data.encode.layouts import layout_for
from qtune.data.encode.settings import ChatSettings
from qtune.data.encode.tokens import Tokens
from qtune.data.faults import Faults
from qtune.data.mojibake import garbled
from qtune.data.pausing import collection_paused
from qtune.data.report import SourceReport
from qtune.data.rows import Block
from qtune.data.source import label
from qtune.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from transformers import PreTrainedTokenizerBase

    from qtune.data.checking import Checked
    from qtune.data.row import Example
    from qtune.data.rows import Encoded
    from qtune.recipe.sections import Recipe

BATCH = 512


class Task(NamedTuple):
    """The examples of some rows of one source."""

    source: int
    rows: list[tuple[Example, ...]]


@dataclass(frozen=True, slots=True)
class Done:
    """What became of a task: `report` counts it alone."""

    source: int
    block: Block
    report: SourceReport
    faults: Faults
    stop_ids: frozenset[int]


@dataclass(frozen=True, slots=True)
class Setting:
    """All that encoding needs to know; another process can be told it."""

    recipe: Recipe
    tokenizer: PreTrainedTokenizerBase
    kinds: tuple[str, ...]
    """For each source the layout of its format."""
    labels: tuple[str, ...]

    @classmethod
    def of(
        cls, checked: Sequence[Checked], recipe: Recipe, tokenizer: PreTrainedTokenizerBase
    ) -> Setting:
        """The setting for checked sources."""
        return cls(
            recipe,
            tokenizer,
            kinds=tuple(one.detected.format.layout for one in checked),
            labels=tuple(label(one.source) for one in checked),
        )


@dataclass(slots=True)
class Encoding:
    """Encodes the batches of some sources; raises `DataError` when a layout cannot write them."""

    setting: Setting
    templates: list[str] = field(init=False)
    """How the rows of each source are written."""
    _encoders: list[Encoder | LabelledEncoder] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        setting = self.setting
        self._encoders, self.templates = [], []
        if setting.recipe.model.task == "classification":
            one = LabelledEncoder(setting.tokenizer, setting.recipe)
            self._encoders = [one] * len(setting.kinds)
            self.templates = [DESCRIPTION] * len(setting.kinds)
            return
        tokens = Tokens(setting.tokenizer)
        for kind, place in zip(setting.kinds, setting.labels, strict=True):
            encoder, template = _encoder(kind, place, setting.recipe, tokens)
            self._encoders.append(encoder)
            self.templates.append(template)

    def rows(self, task: Task, report: SourceReport, faults: Faults) -> list[Encoded]:
        """The encoded rows of a task; what becomes of it is counted in `report`."""
        examples = [example for row in task.rows for example in row]
        report.read += len(task.rows)
        if len(examples) > len(task.rows):
            report.unit = "examples"
        for row in task.rows:
            if any(map(garbled, row)):
                report.count_garbled(row[0].place)
        with collection_paused():
            return list(self._encoders[task.source].encode(examples, report, faults))

    def done(self, task: Task) -> Done:
        """A task as a block, with its own counts and faults."""
        report = SourceReport("", "", "", "", unit="")
        faults = Faults()
        with collection_paused():
            block = Block.of(self.rows(task, report, faults))
        stop_ids = frozenset(self._encoders[task.source].stop_ids)
        return Done(task.source, block, report, faults, stop_ids)


def tasks(checked: Sequence[Checked]) -> Iterator[Task]:
    """All rows of checked sources, in order, in batches."""
    for number, one in enumerate(checked):
        rows = one.examples()
        while batch := list(islice(rows, BATCH)):
            yield Task(number, batch)


def _encoder(kind: str, place: str, recipe: Recipe, tokens: Tokens) -> tuple[Encoder, str]:
    try:
        layout = layout_for(kind, tokens, ChatSettings.of(recipe))
    except DataError as error:
        fault = error.faults[0]
        raise DataError(fault.message, place=place, hint=fault.hint) from None
    cut = kind == "document"
    encoder = Encoder(tokens, layout, recipe.data, train_on=recipe.loss.train_on, cut=cut)
    return encoder, layout.description
