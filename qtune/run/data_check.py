"""`qtune data check`: what CI should refuse about the rows; no weights are read."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from qtune.data.account import TAKE_OUT
from qtune.data.pieces import special_ids
from qtune.data.report import listed
from qtune.data.rows import IGNORED
from qtune.errors import DataError, Fault
from qtune.run.data import open_data
from qtune.run.positions import too_long

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from qtune.data import DataReport, Rows
    from qtune.data.report import SourceReport
    from qtune.run.data import Opened
    from qtune.run.display import Display

MANY_DUPLICATES = 0.01


@dataclass(slots=True)
class Checked:
    """What is wrong, what is worth knowing, and a line for each source."""

    name: str
    sources: list[SourceReport] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    warnings: list[Fault] = field(default_factory=list)

    def lines(self) -> list[str]:
        """A line for each source."""
        return [
            f"{source.path}: {source.read:,} rows, {source.used:,} {source.unit} used, "
            f"{source.format}"
            for source in self.sources
        ]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "recipe": self.name,
            "valid": not self.faults,
            "sources": [source.to_dict() for source in self.sources],
            "faults": [_plain(fault) for fault in self.faults],
            "warnings": [_plain(fault) for fault in self.warnings],
        }


def check(path: str | Path, *, overrides: Sequence[str] = (), display: Display) -> Checked:
    """Check every row of a recipe as training would see it."""
    try:
        opened = open_data(path, overrides=overrides, display=display)
        beyond = list(too_long(opened.recipe, opened.prepared.train, opened.prepared.eval))
    except DataError as error:
        return Checked(str(path), faults=list(error.faults))
    report = opened.prepared.report
    sources = [*report.train_sources, *report.eval_sources]
    checked = Checked(opened.name, sources=sources)
    for source in sources:
        checked.faults += _source_faults(source)
        checked.warnings += _source_warnings(source)
    for rows in (opened.prepared.train, opened.prepared.eval):
        if rows is not None and rows.pictures is None:  # an image has no tokens to look at
            checked.faults += _row_faults(rows, opened)
    checked.faults += _shared(report)
    checked.warnings += _duplicates(report)
    checked.warnings += beyond
    return checked


def _plain(fault: Fault) -> dict[str, str]:
    return {"place": fault.place, "message": fault.message, "hint": fault.hint}


def _source_faults(source: SourceReport) -> Iterator[Fault]:
    if source.unlearnable:
        yield Fault(
            message=f"{source.unlearnable:,} of {source.read:,} rows keep no learnt token: "
            f"{listed(source.unlearnable_places, source.unlearnable)}",
            place=source.path,
            hint="raise data.max_length, or take them out",
        )
    if source.unmarked:
        yield Fault(message=source.unmarked_line, place=source.path, hint=TAKE_OUT)
    if source.end_lost:
        yield Fault(
            message=f"{source.end_lost:,} of {source.read:,} answers are cut and do not teach "
            f"where to stop: {listed(source.end_lost_places, source.end_lost)}",
            place=source.path,
            hint="raise data.max_length, or leave long rows out with overlong: drop",
        )


def _source_warnings(source: SourceReport) -> Iterator[Fault]:
    for reason, count in source.dropped.items():
        yield Fault(message=f"{count:,} rows dropped: {reason}", place=source.path)
    if source.skipped:
        message = f"{source.skipped:,} faulty rows skipped; the first: {source.skipped_first}"
        yield Fault(message=message, place=source.path)
    if source.typed_rows:
        message = f"{source.typed_rows:,} rows spell out special tokens; they stay text"
        yield Fault(message=message, place=source.path)
    if source.garbled:
        hint = "decode the file anew, or repair the text"
        yield Fault(message=source.garbled_line, place=source.garbled_first, hint=hint)


def _row_faults(rows: Rows, opened: Opened) -> Iterator[Fault]:
    """What the tensors themselves show: how rows begin, and how answers end that are not cut.

    Cut ones are as long as a row may be; the encoder has counted them, or split them off.
    """
    ends = special_ids(opened.tokenizer) | {opened.tokenizer.eos_token_id}
    begin = opened.tokenizer.bos_token_id
    writes = opened.recipe.model.task == "causal"
    everything = opened.recipe.loss.train_on == "all"  # then a row may end on its template's text
    cut = opened.recipe.data.overlong in ("truncate_end", "split")
    limit = opened.recipe.data.max_length
    found: Counter[str] = Counter()
    places: dict[str, str] = {}
    for row in rows:
        # the loss never meets the first label
        last = next((label for label in reversed(row.labels[1:]) if label != IGNORED), None)
        whole = not (cut and len(row.input_ids) == limit)
        answered = writes and row.prompt_ids is not None and not everything and whole
        messages = {
            "begins with two begin-of-sequence tokens": begin is not None
            and row.input_ids[:2] == [begin, begin],
            "has no learnt token": last is None,
            "has an answer that does not end on a learnt end token": answered
            and last is not None
            and last not in ends,
        }
        for message in (text for text, wrong in messages.items() if wrong):
            found[message] += 1
            places.setdefault(message, row.place)
    for message, count in found.items():
        more = f", and {count - 1:,} more rows" if count > 1 else ""
        yield Fault(
            message=message + more, place=places[message], hint="look at it: qtune data preview"
        )


def _shared(report: DataReport) -> Iterator[Fault]:
    if report.shared and not report.deduplicated:
        yield Fault(
            message=f"{report.shared:,} training rows are evaluation rows too",
            place="data.eval",
            hint="take them out, or set data.deduplicate: true",
        )


def _duplicates(report: DataReport) -> Iterator[Fault]:
    rows = len(report.train)
    if report.duplicates > MANY_DUPLICATES * rows and not report.deduplicated:
        yield Fault(
            message=f"{report.duplicates:,} of {rows:,} rows stand there twice",
            place="data.train",
            hint="data.deduplicate: true learns each once",
        )
