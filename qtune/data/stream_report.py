"""What a streamed run learns from, as far as it can be told before the rows are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qtune.data.report import SourceReport, counts

if TYPE_CHECKING:
    from qtune.data.rows import Rows


@dataclass(frozen=True, slots=True)
class StreamReport:
    """The account of streamed training rows, which grows while they are learnt."""

    train_sources: tuple[SourceReport, ...]
    """Counted as the rows are read, those read ahead and again after a resumption included."""
    eval: Rows | None
    eval_sources: tuple[SourceReport, ...]
    max_length: int
    example: str
    example_place: str

    def refuse_judged(self) -> None:
        """`UsageError` unless all rows are there to be learnt as they are."""
        for source in (*self.train_sources, *self.eval_sources):
            source.refuse_judged()

    def lines(self) -> list[str]:
        """For people: what the run will read, with one row as the model sees it."""
        text = [
            f"{one.path}: streamed; format {one.format} ({one.why}); template: {one.template}"
            for one in self.train_sources
        ]
        text += [line for source in self.eval_sources for line in source.lines()]
        if self.eval is not None:
            text.append(f"eval: {counts(self.eval, self.max_length)}")
        text.append(f"learnt text of {self.example_place} in ⟦ ⟧: {self.example}")
        return text

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        held_out = None
        if self.eval is not None:
            sources = [source.to_dict() for source in self.eval_sources]
            held_out = {**self.eval.to_dict(), "sources": sources}
        return {
            "train": {
                "streamed": True,
                "sources": [source.to_dict() for source in self.train_sources],
            },
            "eval": held_out,
            "max_length": self.max_length,
            "example": {"place": self.example_place, "text": self.example},
        }
