"""What becomes of rows longer than data.max_length."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qtune.data.faults import Faults
    from qtune.data.report import SourceReport
    from qtune.data.rows import Encoded
    from qtune.recipe.inputs import DataSection


class Fitter:
    """Fits rows to max_length as data.overlong says; counts what it cuts and leaves out."""

    def __init__(self, data: DataSection, *, begin: int | None, documents: bool) -> None:
        """`begin`: the begin-of-sequence id that every row starts with, if the tokenizer adds one;
        `documents`: rows are texts without answers, always split."""
        self._limit = data.max_length
        self._overlong = "split" if documents else data.overlong
        self._begin = begin
        self._documents = documents

    def fit(self, row: Encoded, report: SourceReport, faults: Faults) -> list[Encoded]:
        """The row as it is, shortened, in pieces, or not at all."""
        report.longest_read = max(report.longest_read, len(row.ids))
        if len(row.ids) <= self._limit:
            return [row]
        if self._overlong == "error":
            message = f"{len(row.ids)} tokens, max_length is {self._limit}"
            hint = "raise data.max_length, or choose overlong: drop"
            faults.add(message, place=f"{row.file}:{row.number}", hint=hint)
            return []
        if self._overlong == "split":
            return self._split(row, report)
        if self._overlong == "truncate_end":
            return self._cut_end(row, report)
        if self._overlong == "truncate_prompt":
            return self._cut_prompt(row, report)
        report.dropped[f"longer than {self._limit:,} tokens"] += 1
        return []

    def _cut_end(self, row: Encoded, report: SourceReport) -> list[Encoded]:
        limit = self._limit
        report.truncated += 1
        if any(row.learnt[limit:]):
            report.lost_end(f"{row.file}:{row.number}")
        whole = row.prompt_length is not None and row.prompt_length < limit
        return [
            replace(
                row,
                ids=row.ids[:limit],
                learnt=row.learnt[:limit],
                prompt_length=row.prompt_length if whole else None,
            )
        ]

    def _cut_prompt(self, row: Encoded, report: SourceReport) -> list[Encoded]:
        """Tokens are taken from the beginning, behind the begin of sequence; answers stay whole.

        Only given tokens are cut: a row whose first learnt token would go is left out.
        """
        kept_begin = 1 if self._begin is not None and row.ids[0] == self._begin else 0
        surplus = len(row.ids) - self._limit
        first = row.learnt.index(True) if True in row.learnt else len(row.ids)
        # one given token must stay in front of the answer: nothing predicts the first of a row
        if surplus >= first:
            report.dropped[f"answers longer than {self._limit:,} tokens"] += 1
            return []
        report.truncated += 1
        cut = slice(kept_begin, kept_begin + surplus)
        ids, learnt = list(row.ids), list(row.learnt)
        del ids[cut], learnt[cut]
        prompt = None if row.prompt_length is None else row.prompt_length - surplus
        return [replace(row, ids=ids, learnt=learnt, prompt_length=prompt)]

    def _split(self, row: Encoded, report: SourceReport) -> list[Encoded]:
        report.split += not self._documents
        pieces = list(self._pieces(row))
        # pieces without a learnt token are a row's long prompt: no loss to leave them out
        return [piece for piece in pieces if self._documents or any(piece.learnt)]

    def _pieces(self, row: Encoded) -> Iterator[Encoded]:
        """Pieces of max_length; every learnt token is learnt in exactly one of them.

        A later piece begins with the begin-of-sequence token when the tokenizer uses one, and with
        the last token of the piece before it, as context that is not learnt again. A document
        begins anew and needs no such context behind its begin of sequence.
        """
        yield self._piece(row, 0, self._limit, head=[])
        begin = [] if self._begin is None else [self._begin]
        anew = self._documents and bool(begin)
        at = self._limit
        while at < len(row.ids):
            head = begin if anew else [*begin, row.ids[at - 1]]
            end = at + self._limit - len(head)
            yield self._piece(row, at, end, head=head)
            at = end

    @staticmethod
    def _piece(row: Encoded, start: int, end: int, *, head: list[int]) -> Encoded:
        """Tokens [start, end) behind some context."""
        prompt = row.prompt_length if not start else None
        return replace(
            row,
            ids=[*head, *row.ids[start:end]],
            learnt=[*[False] * len(head), *row.learnt[start:end]],
            prompt_length=None if prompt is None or prompt >= end else prompt,
        )
