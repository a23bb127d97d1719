"""What became of the rows: read, used, dropped and why, before any weight is read."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from qtune.data.rows import IGNORED, EncodedRow, Rows
from qtune.errors import UsageError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from qtune.data.formats.base import Purpose

_SHOWN = 600
_PLACES = 5
NOTHING_LEARNT = "without a learnt token"
UNMARKED = "that mark nothing as learnt"
UNREADABLE = "without a readable image"


@dataclass(slots=True)
class SourceReport:
    """The counts of one source, filled while it is encoded."""

    path: str
    format: str
    why: str
    template: str
    unit: str = "rows"
    read: int = 0
    used: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    unlearnable: int = 0
    unlearnable_places: list[str] = field(default_factory=list)
    unmarked: int = 0
    unmarked_places: list[str] = field(default_factory=list)
    longest_read: int = 0
    truncated: int = 0
    end_lost: int = 0
    end_lost_places: list[str] = field(default_factory=list)
    split: int = 0
    skipped: int = 0
    skipped_first: str = ""
    typed_rows: int = 0
    ended: int = 0
    unrolled: int = 0
    unthought: int = 0
    scaffold: str = ""
    purpose: Purpose = "supervised"
    garbled: int = 0
    garbled_first: str = ""

    def count_garbled(self, place: str) -> None:
        """Count a row whose text was read in another encoding than it was written in."""
        self.garbled += 1
        self.garbled_first = self.garbled_first or place

    def lost_end(self, place: str) -> None:
        """Count a row whose answer was cut, and remember where the first ones are."""
        self.end_lost += 1
        if len(self.end_lost_places) < _PLACES:
            self.end_lost_places.append(place)

    def nothing_learnt(self, place: str) -> None:
        """Count a row that was left out as it has no learnt token, and remember where."""
        self.unlearnable += 1
        self.dropped[NOTHING_LEARNT] += 1
        if len(self.unlearnable_places) < _PLACES:
            self.unlearnable_places.append(place)

    def nothing_marked(self, place: str) -> None:
        """Count a row that was left out as it says itself that nothing of it is learnt."""
        self.unmarked += 1
        self.dropped[UNMARKED] += 1
        if len(self.unmarked_places) < _PLACES:
            self.unmarked_places.append(place)

    def absorb(self, other: SourceReport) -> None:
        """Add the counts of rows that come behind those counted so far."""
        for one in fields(self):
            mine, more = getattr(self, one.name), getattr(other, one.name)
            if one.name == "longest_read":
                self.longest_read = max(mine, more)
            elif isinstance(mine, Counter):
                mine.update(more)
            elif isinstance(mine, list):
                mine += more[: _PLACES - len(mine)]
            elif isinstance(mine, str):
                setattr(self, one.name, more or mine if one.name == "unit" else mine or more)
            else:
                setattr(self, one.name, mine + more)

    def refuse_judged(self) -> None:
        """`UsageError` unless the rows are there to be learnt as they are."""
        if self.purpose == "supervised":
            return
        kind = "preference pairs" if self.purpose == "preference" else "unpaired preferences"
        raise UsageError(
            f"{kind} are read and checked, but qtune does not train on them yet",
            place=self.path,
            hint="to learn one answer of each row, name its format and columns",
        )

    def to_notes(self) -> dict[str, Any]:
        """Everything counted, as JSON that `from_notes` takes."""
        return {one.name: getattr(self, one.name) for one in fields(self)}

    @classmethod
    def from_notes(cls, notes: dict[str, Any]) -> SourceReport:
        """The report that `to_notes` was called on."""
        return cls(**{**notes, "dropped": Counter(notes["dropped"])})

    def lines(self) -> list[str]:
        """For people: two lines, and one for each thing to know."""
        dropped = ", ".join(f"{count:,} {reason}" for reason, count in self.dropped.items())
        text = [
            f"{self.path}: {self.read:,} rows read, {self.used:,} {self.unit} used"
            + (f", dropped: {dropped}" if dropped else ""),
            f"  format {self.format} ({self.why}); template: {self.template}",
        ]
        return [*text, *self._length_lines(), *self._writing_lines()]

    def _length_lines(self) -> list[str]:
        """What was left out or shortened."""
        text = []
        if self.unlearnable:
            places = listed(self.unlearnable_places, self.unlearnable)
            text.append(f"  dropped {NOTHING_LEARNT}: {places}")
        if self.unmarked:
            text.append(f"  dropped as {self.unmarked_line}")
        if self.skipped:
            text.append(f"  {self.skipped:,} faulty rows skipped; the first: {self.skipped_first}")
        if self.truncated:
            text.append(f"  {self.truncated:,} rows cut to max_length")
        if self.end_lost:
            text.append(
                f"  {self.end_lost:,} of them lost the end of their answer and do not teach where "
                f"to stop: {listed(self.end_lost_places, self.end_lost)}"
            )
        if self.split:
            text.append(f"  {self.split:,} rows split into pieces of max_length")
        return text

    def _writing_lines(self) -> list[str]:
        """What came of writing the rows as text."""
        text = []
        if self.typed_rows:
            text.append(f"  {self.typed_rows:,} rows spell out special tokens; they stay text")
        if self.garbled:
            text.append(f"  warning: {self.garbled_line}; the first: {self.garbled_first}")
        if self.ended:
            text.append(
                f"  {self.ended:,} rows got an end of sequence: the template has no end token here"
            )
        if self.unrolled:
            text.append(
                f"  {self.unrolled:,} rows hold one answer each: the template writes answers "
                "otherwise once the conversation goes on"
            )
        if self.unthought:
            text.append(
                f"  {self.unthought:,} rows lost the reasoning of an answer: the template has no "
                "place for it"
            )
        if self.scaffold:
            text.append(f"  given, not learnt, before answers: {self.scaffold!r}")
        return text

    @property
    def unmarked_line(self) -> str:
        """What `unmarked` counts, for people."""
        return (
            f"{self.unmarked:,} of {self.read:,} rows mark nothing as learnt (weight 0 or "
            f"train: false): {listed(self.unmarked_places, self.unmarked)}"
        )

    @property
    def garbled_line(self) -> str:
        """What `garbled` counts, for people."""
        return f"{self.garbled:,} rows hold UTF-8 that was read as cp1252 (such as â€œ for a quote)"

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "path": self.path,
            "format": self.format,
            "purpose": self.purpose,
            "why": self.why,
            "template": self.template,
            "rows_read": self.read,
            "rows_used": self.used,
            "dropped": dict(self.dropped),
            "dropped_places": [*self.unlearnable_places, *self.unmarked_places],
            "truncated": self.truncated,
            "end_lost": self.end_lost,
            "end_lost_places": self.end_lost_places,
            "split": self.split,
            "skipped": self.skipped,
            "rows_with_typed_special_tokens": self.typed_rows,
            "rows_with_garbled_text": self.garbled,
            "first_garbled": self.garbled_first,
            "rows_with_added_end": self.ended,
            "rows_with_one_answer_each": self.unrolled,
            "rows_without_their_reasoning": self.unthought,
            "scaffold": self.scaffold,
        }


@dataclass(frozen=True, slots=True)
class DataReport:
    """The account of a preparation."""

    train: Rows
    eval: Rows | None
    train_sources: tuple[SourceReport, ...]
    eval_sources: tuple[SourceReport, ...]
    held_out: int
    duplicates: int
    shared: int
    deduplicated: bool
    max_length: int
    example: str
    example_place: str
    cache: str = ""

    def refuse_judged(self) -> None:
        """`UsageError` unless all rows are there to be learnt as they are."""
        for source in (*self.train_sources, *self.eval_sources):
            source.refuse_judged()

    def lines(self) -> list[str]:
        """For people: what the run learns from, with one row as the model sees it."""
        text = [line for source in self.train_sources for line in source.lines()]
        text.append(f"train: {counts(self.train, self.max_length)}")
        if self.eval_sources:
            text += [line for source in self.eval_sources for line in source.lines()]
        if self.eval is not None:
            origin = ", held out of the training rows" if self.held_out else ""
            text.append(f"eval: {counts(self.eval, self.max_length)}{origin}")
        removed = "taken out" if self.deduplicated else "kept; data.deduplicate takes them out"
        if self.duplicates:
            text.append(f"{self.duplicates:,} training rows repeat an earlier one ({removed})")
        if self.shared:
            text.append(f"warning: {self.shared:,} training rows are also eval rows ({removed})")
        if self.cache:
            text.append(self.cache)
        text.append(f"learnt text of {self.example_place} in ⟦ ⟧: {self.example}")
        return text

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "train": {
                **self.train.to_dict(),
                "sources": [source.to_dict() for source in self.train_sources],
            },
            "eval": None
            if self.eval is None
            else {
                **self.eval.to_dict(),
                "sources": [source.to_dict() for source in self.eval_sources],
            },
            "held_out": self.held_out,
            "duplicates": self.duplicates,
            "training_rows_in_eval": self.shared,
            "deduplicated": self.deduplicated,
            "max_length": self.max_length,
            "example": {"place": self.example_place, "text": self.example},
        }


def counts(rows: Rows, max_length: int) -> str:
    """For people: how many rows and tokens."""
    numbers = rows.to_dict()
    if rows.pictures is not None:
        return f"{numbers['rows']:,} images of {rows.pictures.tokens:,} tokens each"
    return (
        f"{numbers['rows']:,} rows, {numbers['tokens']:,} tokens, "
        f"{numbers['supervised_tokens']:,} learnt ({numbers['supervised_share']:.1%}), "
        f"longest {numbers['longest']:,} of {max_length:,}"
    )


def marked(row: EncodedRow, tokenizer: PreTrainedTokenizerBase) -> str:
    """A row decoded from its very tensors, with ⟦ ⟧ around what is learnt."""
    pieces: list[str] = []
    start = 0
    for end in range(1, len(row.input_ids) + 1):
        learnt = row.labels[start] != IGNORED
        if end < len(row.input_ids) and (row.labels[end] != IGNORED) == learnt:
            continue
        text = str(tokenizer.decode(row.input_ids[start:end], skip_special_tokens=False))
        pieces.append(f"⟦{text}⟧" if learnt else text)
        start = end
    return _one_line("".join(pieces))


def labelled(row: EncodedRow, tokenizer: PreTrainedTokenizerBase) -> str:
    """A row of a classification, ⟦ ⟧ around the name of its label."""
    text = str(tokenizer.decode(row.input_ids[:-1], skip_special_tokens=False))
    return _one_line(f"{text} ⟦{row.answer}⟧")


def _one_line(text: str) -> str:
    text = text.replace("\r", "").replace("\n", "⏎")
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN // 2]} ... {text[-_SHOWN // 2 :]}"


def listed(places: list[str], count: int) -> str:
    """The first places, and how many more there are."""
    more = f" and {count - len(places):,} more" if count > len(places) else ""
    return ", ".join(places) + more
