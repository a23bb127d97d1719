"""From the recipe's sources to rows of tokens: all faults first, then the encoding."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from qtune.data import cache, duplicates
from qtune.data.encode.encoder import Encoder
from qtune.data.encode.layouts import layout_for
from qtune.data.encode.tokens import Tokens
from qtune.data.faults import Faults
from qtune.data.formats.detect import Detected, detect
from qtune.data.pausing import collection_paused
from qtune.data.report import DataReport, SourceReport, marked
from qtune.data.rows import Rows, RowStore
from qtune.data.source import label, manner, read
from qtune.data.split import hold_out
from qtune.data.store import Columns
from qtune.errors import DataError, UsageError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from qtune.data.row import Example, Row
    from qtune.recipe.sections import Recipe, SourceSection

Progress = Callable[[int, int], None]
_BATCH = 512
_UNLEARNABLE_SHARE = 0.01
_SKIPPED_SHARE = 0.01


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
    split_by: str | None
    skipped: Faults

    def examples(self, row: Row) -> tuple[Example, ...]:
        """The examples of a row."""
        return _examples_of(row, self.detected, self.source, self.split_by)


def prepare(
    recipe: Recipe, tokenizer: PreTrainedTokenizerBase, *, on_progress: Progress | None = None
) -> Prepared:
    """Read, check and encode all rows of a recipe; `DataError` lists what is wrong with them."""
    data = recipe.data
    if data.eval and data.val_size:
        raise UsageError("has no effect beside data.eval", place="data.val_size", hint="remove one")
    faults = Faults()
    learnt = _Kept(data.train, recipe, tokenizer, split_by=data.split_by)
    measured = _Kept(data.eval, recipe, tokenizer)
    total = learnt.check(faults) + measured.check(faults)
    faults.raise_if_any()
    progress = _Progress(total, on_progress)
    train, train_sources = learnt.rows(progress)
    repeated = duplicates.repeated(train)
    if data.deduplicate:
        train = duplicates.without(train, repeated)
    held: Rows | None = None
    eval_sources: tuple[SourceReport, ...] = ()
    if data.eval:
        held, eval_sources = measured.rows(progress)
    elif data.val_size:
        grouped = data.split_by is not None
        train, held = hold_out(train, data.val_size, seed=recipe.train.seed, grouped=grouped)
    shared = [] if held is None else duplicates.shared(train, held)
    if data.deduplicate and shared:
        train = duplicates.without(train, shared)
        _refuse_empty(train, data.train)
    report = DataReport(
        train=train,
        eval=held,
        train_sources=train_sources,
        eval_sources=eval_sources,
        held_out=0 if held is None or data.eval else len(held),
        duplicates=len(repeated),
        shared=len(shared),
        deduplicated=data.deduplicate,
        max_length=data.max_length,
        example=marked(train[0], tokenizer),
        example_place=train[0].place,
        cache=learnt.note,
    )
    return Prepared(train, held, report)


def read_eval(
    sources: Sequence[SourceSection], recipe: Recipe, tokenizer: PreTrainedTokenizerBase
) -> Rows:
    """The rows of some sources, encoded as the recipe says."""
    faults = Faults()
    kept = _Kept(sources, recipe, tokenizer)
    total = kept.check(faults)
    faults.raise_if_any()
    return kept.rows(_Progress(total, None))[0]


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


def _check(
    sources: Sequence[SourceSection],
    faults: Faults,
    *,
    on_bad_row: str,
    split_by: str | None = None,
) -> list[_Checked]:
    """Read every row of every source once, so that all faults come together and early."""
    checked = []
    for source in sources:
        try:
            checked += _check_source(source, faults, split_by, on_bad_row)
        except DataError as error:
            faults.add_error(error)
    return checked


def _check_source(
    source: SourceSection, faults: Faults, split_by: str | None, on_bad_row: str
) -> list[_Checked]:
    detected: Detected | None = None
    count = 0
    own = Faults()
    for row in read(source, own):
        detected = detected or detect(row, source)
        try:
            _examples_of(row, detected, source, split_by)
            count += 1
        except DataError as error:
            own.add_error(error)
    if detected is None and not own.count:
        raise DataError("no rows", place=label(source), hint="the file is empty")
    skip = on_bad_row == "skip" and own.count <= max(1, _SKIPPED_SHARE * count)
    if not (skip and count):
        faults.absorb(own)
    if on_bad_row == "skip" and count and not skip:
        message = f"{own.count} of {count + own.count} rows are faulty, more than can be skipped"
        faults.add(f"{message} (1%)", place=label(source))
    return [] if detected is None else [_Checked(source, detected, count, split_by, own)]


def _examples_of(
    row: Row, detected: Detected, source: SourceSection, split_by: str | None
) -> tuple[Example, ...]:
    examples = detected.format.examples(row, columns=detected.columns, source=source)
    if split_by is None:
        return examples
    if row.values.get(split_by) is None:
        columns = ", ".join(row.values)
        message = f"{split_by}, which data.split_by names, is missing; the columns are {columns}"
        raise DataError(message, place=row.place)
    group = str(row.values[split_by])
    return tuple(replace(example, group=group) for example in examples)


def _refuse_empty(rows: Rows, sources: Sequence[SourceSection]) -> None:
    if not len(rows):
        place = ", ".join(label(source) for source in sources)
        raise DataError("every training row is an evaluation row too", place=place)


class _Kept:
    """The rows of some sources: from the cache, or read, encoded and put there."""

    def __init__(
        self,
        sources: Sequence[SourceSection],
        recipe: Recipe,
        tokenizer: PreTrainedTokenizerBase,
        *,
        split_by: str | None = None,
    ) -> None:
        self._sources, self._recipe, self._tokenizer = sources, recipe, tokenizer
        self._split_by = split_by
        self._folder = cache.home(recipe.data.cache_dir)
        self._key = self._new_key()
        self._found = cache.find(self._folder, self._key) if self._key else None
        self._checked: list[_Checked] = []
        self.note = f"rows from the cache: {self._folder}" if self._found else ""

    def check(self, faults: Faults) -> int:
        """Read every row that is not in the cache; returns how many."""
        if not self._found:
            on_bad_row = self._recipe.data.on_bad_row
            self._checked = _check(
                self._sources, faults, on_bad_row=on_bad_row, split_by=self._split_by
            )
        return sum(one.count for one in self._checked)

    def rows(self, progress: _Progress) -> tuple[Rows, tuple[SourceReport, ...]]:
        """The encoded rows and the report of each source."""
        columns, notes = self._found or self._made(progress)
        reports = tuple(SourceReport.from_notes(one) for one in notes["sources"])
        store = RowStore(columns)
        return Rows(store, range(len(store))), reports

    def _made(self, progress: _Progress) -> tuple[Columns, dict[str, Any]]:
        def fill(columns: Columns) -> dict[str, Any]:
            store = RowStore(columns)
            reports = _encode(self._checked, self._recipe, self._tokenizer, store, progress)
            return {"sources": [report.to_notes() for report in reports]}

        if self._key and cache.writable(self._folder):
            return cache.make(self._folder, self._key, fill, self._unchanged)
        if self._key:
            self.note = f"rows are not kept: {self._folder} is not writable (data.cache_dir)"
        columns = Columns()
        return columns, fill(columns)

    def _unchanged(self) -> bool:
        """Whether the files are still those that the key was made of."""
        return self._new_key() == self._key

    def _new_key(self) -> str | None:
        """The key of the files as they are; None for faulty sources, which the check reports."""
        try:
            return cache.key_of(
                self._sources, self._recipe, self._tokenizer, split_by=self._split_by
            )
        except (DataError, OSError):
            return None


def _encode(
    checked: Sequence[_Checked],
    recipe: Recipe,
    tokenizer: PreTrainedTokenizerBase,
    store: RowStore,
    progress: _Progress,
) -> list[SourceReport]:
    tokens = Tokens(tokenizer)
    reports = [
        _encode_source(one, number, recipe, tokens, store, progress)
        for number, one in enumerate(checked)
    ]
    _refuse_unlearnable(reports, recipe.data.max_length)
    return reports


def _encode_source(
    checked: _Checked,
    number: int,
    recipe: Recipe,
    tokens: Tokens,
    store: RowStore,
    progress: _Progress,
) -> SourceReport:
    """Encode a source into the store; a batch with faulty rows stops it."""
    source, detected = checked.source, checked.detected
    try:
        layout = layout_for(
            detected.format.layout, tokens, variables=recipe.model.chat_template_kwargs
        )
    except DataError as error:
        fault = error.faults[0]
        raise DataError(fault.message, place=label(source), hint=fault.hint) from None
    documents = detected.format.layout == "document"
    encoder = Encoder(
        tokens,
        layout,
        recipe.data,
        train_on=recipe.loss.train_on,
        cut=documents,
    )
    report = SourceReport(
        path=label(source),
        format=detected.format.name,
        why=detected.why + (f"; {how}" if (how := manner(source)) else ""),
        template=layout.description,
        unit="pieces" if documents else "rows",
    )
    if checked.skipped.count:
        report.skipped = checked.skipped.count
        report.skipped_first = str(checked.skipped.first[0])
    rows = iter(_examples(checked))
    while batch := list(islice(rows, _BATCH)):
        faults = Faults()
        report.read += len(batch)
        examples = [example for row in batch for example in row]
        if len(examples) > len(batch):
            report.unit = "examples"
        with collection_paused():
            store.extend(list(encoder.encode(examples, report, faults)), source=number)
        faults.raise_if_any()
        progress.add(len(batch))
    store.stop_ids.update(encoder.stop_ids)
    return report


def _examples(checked: _Checked) -> Iterator[tuple[Example, ...]]:
    """The examples of each row of a source, but for the faulty rows that are to be skipped."""
    faults = Faults()
    for row in read(checked.source, faults):
        try:
            yield checked.examples(row)
        except DataError as error:
            faults.add_error(error)
    if faults.count != checked.skipped.count:
        faults.add("the file changed while it was read", place=label(checked.source))
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
