"""From the recipe's sources to rows of tokens: all faults first, then the encoding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qtune.data import cache, duplicates, workers
from qtune.data.account import heading, refuse_unlearnable
from qtune.data.checking import Checked, check
from qtune.data.classes import sources_of
from qtune.data.encoding import BATCH, Encoding, Setting, tasks
from qtune.data.faults import Faults
from qtune.data.pictures import Pictures
from qtune.data.report import DataReport, SourceReport, labelled, marked
from qtune.data.rows import Rows, RowStore
from qtune.data.source import label
from qtune.data.split import hold_out
from qtune.data.store import Columns
from qtune.data.stream import Stream, open_stream
from qtune.data.stream_report import StreamReport
from qtune.errors import DataError, UsageError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from qtune.data.rows import EncodedRow
    from qtune.recipe.inputs import SourceSection
    from qtune.recipe.sections import Recipe

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Prepared:
    """Rows to learn, rows to measure on, and the account of both."""

    train: Rows
    eval: Rows | None
    report: DataReport


def prepare(
    recipe: Recipe,
    tokenizer: PreTrainedTokenizerBase | Pictures,
    *,
    on_progress: Progress | None = None,
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
    shared = duplicates.shared(train, train[:0] if held is None else held)
    if data.deduplicate and len(shared):
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
        example=_example(train[0], recipe, tokenizer),
        example_place=train[0].place,
        cache=learnt.note,
    )
    return Prepared(train, held, report)


def _example(row: EncodedRow, recipe: Recipe, tokenizer: PreTrainedTokenizerBase | Pictures) -> str:
    if isinstance(tokenizer, Pictures):
        return f"{tokenizer.told(row)} ⟦{row.answer}⟧"
    if recipe.model.task == "classification":
        return labelled(row, tokenizer)
    return marked(row, tokenizer)


@dataclass(frozen=True, slots=True)
class Streamed:
    """A stream of rows to learn, rows to measure on, and the account of both."""

    train: Stream
    eval: Rows | None
    report: StreamReport


def prepare_stream(
    recipe: Recipe,
    tokenizer: PreTrainedTokenizerBase | Pictures,
    *,
    on_progress: Progress | None = None,
) -> Streamed:
    """Open the training rows of a recipe with data.streaming; only the first ones are looked at.

    Evaluation rows are read, checked and encoded as ever.
    """
    faults = Faults()
    measured = _Kept(recipe.data.eval, recipe, tokenizer)
    total = measured.check(faults)
    faults.raise_if_any()
    train = open_stream(recipe, tokenizer)
    first = train.first()
    held: Rows | None = None
    sources: tuple[SourceReport, ...] = ()
    if recipe.data.eval:
        held, sources = measured.rows(_Progress(total, on_progress))
    report = StreamReport(
        train_sources=train.reports,
        eval=held,
        eval_sources=sources,
        max_length=recipe.data.max_length,
        example=marked(first, tokenizer),
        example_place=first.place,
    )
    return Streamed(train, held, report)


def read_eval(
    sources: Sequence[SourceSection], recipe: Recipe, tokenizer: PreTrainedTokenizerBase | Pictures
) -> Rows:
    """The rows of some sources, encoded as the recipe says."""
    faults = Faults()
    kept = _Kept(sources, recipe, tokenizer)
    total = kept.check(faults)
    faults.raise_if_any()
    rows, reports = kept.rows(_Progress(total, None))
    for report in reports:
        report.refuse_judged()
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
        tokenizer: PreTrainedTokenizerBase | Pictures,
        *,
        split_by: str | None = None,
    ) -> None:
        self._recipe, self._tokenizer = recipe, tokenizer
        self._sources = sources_of(recipe, sources)
        self._split_by = split_by
        self._folder = cache.home(recipe.data.cache_dir)
        self._key = self._new_key()
        self._found = cache.find(self._folder, self._key) if self._key else None
        self._checked: list[Checked] = []
        self.note = f"rows from the cache: {self._folder}" if self._found else ""

    def check(self, faults: Faults) -> int:
        """Read every row that is not in the cache; returns how many."""
        if not self._found:
            on_bad_row = self._recipe.data.on_bad_row
            self._checked = check(
                self._sources, faults, on_bad_row=on_bad_row, split_by=self._split_by
            )
        return sum(one.count for one in self._checked)

    def rows(self, progress: _Progress) -> tuple[Rows, tuple[SourceReport, ...]]:
        """The encoded rows and the report of each source."""
        columns, notes = self._found or self._made(progress)
        reports = tuple(SourceReport.from_notes(one) for one in notes["sources"])
        store = RowStore(columns)
        pictures = self._tokenizer if isinstance(self._tokenizer, Pictures) else None
        return Rows(store, range(len(store)), pictures), reports

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
    checked: Sequence[Checked],
    recipe: Recipe,
    tokenizer: PreTrainedTokenizerBase | Pictures,
    store: RowStore,
    progress: _Progress,
) -> list[SourceReport]:
    """Encode all rows into the store; the faults of all of them come together."""
    encoding = Encoding(Setting.of(checked, recipe, tokenizer))
    reports = [heading(*pair) for pair in zip(checked, encoding.templates, strict=True)]
    faults = Faults()
    batches = sum(-(-one.count // BATCH) for one in checked)
    for done in workers.encoded(encoding, tasks(checked), batches=batches):
        faults.absorb(done.faults)
        reports[done.source].absorb(done.report)
        store.append(done.block, source=done.source)
        store.stop_ids.update(done.stop_ids)
        progress.add(done.report.read)
    faults.raise_if_any()
    refuse_unlearnable(reports, recipe.data.max_length)
    return reports
