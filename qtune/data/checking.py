"""Every row of every source read once, so that all faults come together and early."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from qtune.data.faults import Faults
from qtune.data.formats.detect import Detected, detect
from qtune.data.source import label, read
from qtune.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from qtune.data.row import Example, Row
    from qtune.recipe.inputs import SourceSection

_SKIPPED_SHARE = 0.01


@dataclass(frozen=True, slots=True)
class Checked:
    """A source whose rows are all readable, but for those that are to be skipped."""

    source: SourceSection
    detected: Detected
    count: int
    split_by: str | None
    skipped: Faults

    def examples(self) -> Iterator[tuple[Example, ...]]:
        """The examples of each row; the file must still be what was checked."""
        faults = Faults()
        for row in read(self.source, faults):
            try:
                yield examples_of(row, self.detected, self.source, self.split_by)
            except DataError as error:
                faults.add_error(error)
        if faults.count != self.skipped.count:
            faults.add("the file changed while it was read", place=label(self.source))
            faults.raise_if_any()


def check(
    sources: Sequence[SourceSection],
    faults: Faults,
    *,
    on_bad_row: str,
    split_by: str | None = None,
) -> list[Checked]:
    """Read every row of some sources; what is wrong with them goes to `faults`."""
    checked = []
    for source in sources:
        try:
            checked += _check_source(source, faults, split_by, on_bad_row)
        except DataError as error:
            faults.add_error(error)
    return checked


def examples_of(
    row: Row, detected: Detected, source: SourceSection, split_by: str | None
) -> tuple[Example, ...]:
    """The examples of one row, with its value of data.split_by."""
    examples = detected.format.examples(row, columns=detected.columns, source=source)
    if split_by is None:
        return examples
    if row.values.get(split_by) is None:
        columns = ", ".join(row.values)
        message = f"{split_by}, which data.split_by names, is missing; the columns are {columns}"
        raise DataError(message, place=row.place)
    group = str(row.values[split_by])
    return tuple(replace(example, group=group) for example in examples)


def _check_source(
    source: SourceSection, faults: Faults, split_by: str | None, on_bad_row: str
) -> list[Checked]:
    detected: Detected | None = None
    count = 0
    own = Faults()
    for row in read(source, own):
        detected = detected or detect(row, source)
        try:
            examples_of(row, detected, source, split_by)
            count += 1
        except DataError as error:
            own.add_error(error)
    if detected is None and not own.count:
        empty = "its slice takes none" if "[" in source.split else "the file is empty"
        raise DataError("no rows", place=label(source), hint=empty)
    few = own.count <= max(1, _SKIPPED_SHARE * count)
    skip = on_bad_row == "skip" and few and not own.cut_off
    if not (skip and count):
        faults.absorb(own)
    if on_bad_row == "skip" and count and own.cut_off:
        faults.add(
            "the rows behind a fault cannot be read, so it is not skipped", place=label(source)
        )
    elif on_bad_row == "skip" and count and not skip:
        message = f"{own.count} of {count + own.count} rows are faulty, more than can be skipped"
        faults.add(f"{message} (1%)", place=label(source))
    return [] if detected is None else [Checked(source, detected, count, split_by, own)]
