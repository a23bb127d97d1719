"""Text of a row in pieces that are learnt or given; the mask is exact because each is tokenised
apart.

Why apart and not jointly with offsets: a server tokenises the prompt alone, so the prompt must end
on a token boundary in training too; a token that straddles prompt and answer could be neither
masked nor learnt rightly. The ids of the given part are then, by construction, those of the
prompt.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of a row.

    `plain`: special tokens in the text stay text. `ids`: ids that stand for themselves (the end
    of sequence, or tokens of the row's own), the `text` is only for reading then.
    """

    text: str
    trained: bool
    plain: bool = False
    ids: tuple[int, ...] = ()


class Span(NamedTuple):
    """Characters [start, end) that are learnt; `closed` when they end on a special token.

    `scaffold` is what the template wrote in front of them, `unthought`: it left out the reasoning.
    """

    start: int
    end: int
    closed: bool
    scaffold: str = ""
    unthought: bool = False


@dataclass(frozen=True, slots=True)
class WrittenRow:
    """A row written out: its segments, and what its layout had to do to it."""

    segments: tuple[Segment, ...]
    typed: int = 0  # special tokens found in the row's own text, kept as text
    ended: bool = False  # an end of sequence was added where the template has no end token
    answer: str = ""  # what is learnt, where it is not the last answer of the example
    unrolled: bool = False  # one of several rows, each with one answer of the conversation
    whole: bool = False  # the row's own ids, which get no begin of sequence
    scaffold: str = ""  # text that the template puts between its prompt and the answer
    unthought: bool = False  # the template has no place for an answer's reasoning
