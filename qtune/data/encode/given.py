"""Rows that are tokenised already: their ids as they are, learnt where they say so."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from qtune.data.encode.segment import Segment, WrittenRow
from qtune.errors import DataError

if TYPE_CHECKING:
    from qtune.data.encode.tokens import Tokens
    from qtune.data.row import Example


class GivenLayout:
    """Nothing is added: neither a begin nor an end of sequence."""

    description = "none: the rows are tokens"

    def __init__(self, tokens: Tokens) -> None:
        self._tokenizer = tokens.tokenizer
        self._size = len(tokens.tokenizer)

    def write(self, example: Example) -> tuple[WrittenRow, ...]:
        """The runs of learnt and given ids; `DataError` for an id that the tokenizer has not."""
        strange = max(example.ids)
        if strange >= self._size:
            raise DataError(
                f"holds the id {strange}, the tokenizer has {self._size} tokens",
                hint="the row was tokenised with another tokenizer",
            )
        pairs = zip(example.learnt, example.ids, strict=True)
        segments = [
            Segment("", learnt, ids=tuple(token for _, token in run))
            for learnt, run in groupby(pairs, key=lambda pair: pair[0])
        ]
        learnt = [segment.ids for segment in segments if segment.trained]
        answer = self._tokenizer.decode(learnt[-1], skip_special_tokens=True)
        return (WrittenRow(tuple(segments), answer=answer, whole=True),)
