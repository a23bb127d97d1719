"""The account of a source: how it begins, and when what was counted is a reason to stop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtune.data.report import UNREADABLE, SourceReport
from qtune.data.source import label, manner
from qtune.errors import DataError, Fault

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qtune.data.checking import Checked

_UNLEARNABLE_SHARE = 0.01
TAKE_OUT = "take them out; loss.train_on: field learns only turns that say train: true"


def heading(checked: Checked, template: str) -> SourceReport:
    """The report of a source before any row is counted."""
    documents = checked.detected.format.layout == "document"
    first = checked.skipped.first
    return SourceReport(
        path=label(checked.source),
        format=checked.detected.format.name,
        why=checked.detected.why + (f"; {how}" if (how := manner(checked.source)) else ""),
        template=template,
        unit="pieces" if documents else "rows",
        purpose=checked.detected.format.purpose,
        skipped=checked.skipped.count,
        skipped_first=str(first[0]) if first else "",
    )


def refuse_unlearnable(reports: Sequence[SourceReport], max_length: int) -> None:
    """No row left, or over 1% of rows without a learnt token: the data do not fit the settings.

    Overlong rows that `overlong: drop` leaves out are counted in the report but were asked for;
    a row whose whole answer was cut away, or that learns nothing, is a mistake.
    """
    read_rows = sum(report.read for report in reports)
    unlearnable = sum(report.unlearnable for report in reports)
    place = ", ".join(report.path for report in reports)
    unreadable = sum(report.dropped[UNREADABLE] for report in reports)
    if unreadable > max(1, _UNLEARNABLE_SHARE * read_rows):
        message = f"{unreadable} of {read_rows} images cannot be read, more than can be skipped"
        raise DataError(f"{message} (1%)", place=place, hint="on_bad_row: error tells which")
    if sum(report.unmarked for report in reports) > _UNLEARNABLE_SHARE * read_rows:
        faults = [
            Fault(message=report.unmarked_line, place=report.path, hint=TAKE_OUT)
            for report in reports
            if report.unmarked
        ]
        raise DataError.of(faults)
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
