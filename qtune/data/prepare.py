"""From the recipe's sources to rows of tokens: all faults first, then the encoding."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from qtune.data.encode.encoder import Encoder
from qtune.data.encode.layouts import layout_for
from qtune.data.encode.tokens import Tokens
from qtune.data.faults import Faults
from qtune.data.formats.detect import Detected, detect
from qtune.data.report import DataReport, SourceReport, marked
from qtune.data.rows import Rows, RowStore
from qtune.data.source import label, read
from qtune.data.split import hold_out, shared_rows
from qtune.errors import DataError, UsageError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from qtune.data.row import Example, Row
    from qtune.recipe.sections import Recipe, SourceSection

Progress = Callable[[int, int], None]
_BATCH = 512
_UNLEARNABLE_SHARE = 0.01


@dataclass(frozen=True, slots=True)
class Prepared:
    """Rows to learn, rows to measure on, and the account of both."""

    train: Rows
    eval: Rows | None
    report: DataReport


@dataclass(frozen=True, slots=True)
class _Checked:
    """A source whose rows are all readable."""

    source: SourceSection
    detected: Detected
    count: int


def prepare(
    recipe: Recipe, tokenizer: PreTrainedTokenizerBase, *, on_progress: Progress | None = None
) -> Prepared:
    """Read, check and encode all rows of a recipe; `DataError` lists what is wrong with them."""
    data = recipe.data
    if data.eval and data.val_size:
        raise UsageError("has no effect beside data.eval", place="data.val_size", hint="remove one")
    faults = Faults()
    train_checked = _check(data.train, faults)
    eval_checked = _check(data.eval, faults)
    faults.raise_if_any()
    total = sum(one.count for one in (*train_checked, *eval_checked))
    progress = _Progress(total, on_progress)
    train, train_sources = _encode(train_checked, recipe, tokenizer, progress)
    held: Rows | None = None
    eval_sources: tuple[SourceReport, ...] = ()
    if data.eval:
        held, eval_sources = _encode(eval_checked, recipe, tokenizer, progress)
    elif data.val_size:
        train, held = hold_out(train, data.val_size, seed=recipe.train.seed)
    report = DataReport(
        train=train,
        eval=held,
        train_sources=train_sources,
        eval_sources=eval_sources,
        held_out=0 if held is None or data.eval else len(held),
        shared=shared_rows(train, held) if held is not None and data.eval else 0,
        max_length=data.max_length,
        example=marked(train[0], tokenizer),
        example_place=train[0].place,
    )
    return Prepared(train, held, report)


def read_eval(
    sources: Sequence[SourceSection], recipe: Recipe, tokenizer: PreTrainedTokenizerBase
) -> Rows:
    """The rows of some sources, encoded as the recipe says."""
    faults = Faults()
    checked = _check(sources, faults)
    faults.raise_if_any()
    rows, _ = _encode(checked, recipe, tokenizer, _Progress(sum(c.count for c in checked), None))
    return rows


class _Progress:
    """Rows done of all rows."""

    def __init__(self, total: int, listener: Progress | None) -> None:
        self._total = total
        self._done = 0
        self._listener = listener

    def add(self, rows: int) -> None:
        """Tell the listener that more rows are done."""
        self._done += rows
        if self._listener:
            self._listener(self._done, self._total)


def _check(sources: Sequence[SourceSection], faults: Faults) -> list[_Checked]:
    """Read every row of every source once, so that all faults come together and early."""
    checked = []
    for source in sources:
        try:
            checked += _check_source(source, faults)
        except DataError as error:
            faults.add_error(error)
    return checked


def _check_source(source: SourceSection, faults: Faults) -> list[_Checked]:
    detected: Detected | None = None
    count = 0
    before = faults.count
    for row in read(source, faults):
        detected = detected or detect(row, source)
        count += 1
        try:
            _example(row, detected, source)
        except DataError as error:
            faults.add_error(error)
    if detected is None and faults.count == before:
        raise DataError("no rows", place=label(source), hint="the file is empty")
    return [] if detected is None else [_Checked(source, detected, count)]


def _example(row: Row, detected: Detected, source: SourceSection) -> Example:
    return detected.format.example(
        row, columns=detected.columns, prompt_template=source.prompt_template
    )


def _encode(
    checked: Sequence[_Checked],
    recipe: Recipe,
    tokenizer: PreTrainedTokenizerBase,
    progress: _Progress,
) -> tuple[Rows, tuple[SourceReport, ...]]:
    tokens = Tokens(tokenizer)
    store = RowStore()
    reports = tuple(_encode_source(one, recipe, tokens, store, progress) for one in checked)
    _refuse_unlearnable(reports, recipe.data.max_length)
    return Rows(store, range(len(store))), reports


def _encode_source(
    checked: _Checked, recipe: Recipe, tokens: Tokens, store: RowStore, progress: _Progress
) -> SourceReport:
    """Encode a source into the store; a batch with faulty rows stops it."""
    source, detected = checked.source, checked.detected
    try:
        layout = layout_for(detected.format.layout, tokens)
    except DataError as error:
        fault = error.faults[0]
        raise DataError(fault.message, place=label(source), hint=fault.hint) from None
    documents = detected.format.layout == "document"
    encoder = Encoder(
        tokens,
        layout,
        recipe.data,
        everything=recipe.loss.train_on == "all",
        cut=documents,
    )
    report = SourceReport(
        path=label(source),
        format=detected.format.name,
        why=detected.why,
        template=layout.description,
        unit="pieces" if documents else "rows",
    )
    examples = iter(_examples(checked))
    while batch := list(islice(examples, _BATCH)):
        faults = Faults()
        report.read += len(batch)
        for row in encoder.encode(batch, report, faults):
            store.add(row)
        faults.raise_if_any()
        progress.add(len(batch))
    store.stop_ids |= encoder.stop_ids
    return report


def _examples(checked: _Checked) -> Iterator[Example]:
    faults = Faults()
    for row in read(checked.source, faults):
        yield _example(row, checked.detected, checked.source)
    faults.raise_if_any()


def _refuse_unlearnable(reports: Sequence[SourceReport], max_length: int) -> None:
    """No row left, or over 1% of rows without a learnt token: the data do not fit the settings.

    Overlong rows that `overlong: drop` leaves out are counted in the report but were asked for;
    a row whose whole answer was cut away, or that learns nothing, is a mistake.
    """
    read_rows = sum(report.read for report in reports)
    unlearnable = sum(report.unlearnable for report in reports)
    place = ", ".join(report.path for report in reports)
    if not any(report.used for report in reports):
        longest = max(report.longest_read for report in reports)
        raise DataError(
            f"0 of {read_rows} rows keep a learnt token at max_length {max_length} "
            f"(the longest has {longest} tokens)",
            place=place,
            hint="raise data.max_length",
        )
    if unlearnable > _UNLEARNABLE_SHARE * read_rows:
        raise DataError(
            f"{unlearnable} of {read_rows} rows keep no learnt token at max_length {max_length}, "
            "more than 1%",
            place=place,
            hint="raise data.max_length, or leave long rows out with overlong: drop",
        )
