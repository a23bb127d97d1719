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
from qtune.data.encode.pictured import DESCRIPTION as IMAGE_PROCESSOR
from qtune.data.encode.pictured import PicturedEncoder
from qtune.data.encode.settings import ChatSettings
from qtune.data.encode.tokens import Tokens
from qtune.data.faults import Faults
from qtune.data.formats.pictured import PICTURED
from qtune.data.mojibake import garbled
from qtune.data.pausing import collection_paused
from qtune.data.pictures import Pictures
from qtune.data.report import SourceReport
from qtune.data.rows import Block
from qtune.data.source import label, local_files
from qtune.errors import DataError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

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
    tokenizer: PreTrainedTokenizerBase | Pictures
    kinds: tuple[str, ...]
    """For each source the layout of its format."""
    labels: tuple[str, ...]
    folders: Mapping[str, Path]
    """For each file the folder that the images it names are in."""

    @classmethod
    def of(
        cls,
        checked: Sequence[Checked],
        recipe: Recipe,
        tokenizer: PreTrainedTokenizerBase | Pictures,
    ) -> Setting:
        """The setting for checked sources; `UsageError` for rows that the model cannot take."""
        for one in checked:
            _refuse_other(one, seen=isinstance(tokenizer, Pictures))
        files = [local_files(one.source) or {} for one in checked]
        return cls(
            recipe,
            tokenizer,
            kinds=tuple(one.detected.format.layout for one in checked),
            labels=tuple(label(one.source) for one in checked),
            folders={
                name: path if path.is_dir() else path.parent
                for named in files
                for name, path in named.items()
            },
        )


@dataclass(slots=True)
class Encoding:
    """Encodes the batches of some sources; raises `DataError` when a layout cannot write them."""

    setting: Setting
    templates: list[str] = field(init=False)
    """How the rows of each source are written."""
    _encoders: list[Encoder | LabelledEncoder | PicturedEncoder] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        setting = self.setting
        self._encoders, self.templates = [], []
        if isinstance(setting.tokenizer, Pictures):
            seeing = PicturedEncoder(setting.tokenizer, setting.recipe, setting.folders)
            self._encoders = [seeing] * len(setting.kinds)
            self.templates = [IMAGE_PROCESSOR] * len(setting.kinds)
            return
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


def _refuse_other(one: Checked, *, seen: bool) -> None:
    """`UsageError` for texts where the model sees images, and for images where it reads texts."""
    if (one.detected.format.layout == PICTURED) == seen:
        return
    message = "rows of images, and the model reads text"
    hint = "name a model of images, such as a ViT"
    if seen:
        message = "rows of text, and the model sees images"
        hint = "name a folder of folders of images, or a table with the columns image and label"
    raise UsageError(message, place=label(one.source), hint=hint)


def _encoder(kind: str, place: str, recipe: Recipe, tokens: Tokens) -> tuple[Encoder, str]:
    try:
        layout = layout_for(kind, tokens, ChatSettings.of(recipe))
    except DataError as error:
        fault = error.faults[0]
        raise DataError(fault.message, place=place, hint=fault.hint) from None
    cut = kind == "document"
    encoder = Encoder(tokens, layout, recipe.data, train_on=recipe.loss.train_on, cut=cut)
    return encoder, layout.description
