"""A row read back from the tensors that training uses, as pieces of text: learnt or given."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from qtune.data.rows import IGNORED

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from qtune.data.batch import Batch
    from qtune.data.rows import EncodedRow

PARTIAL = "\N{REPLACEMENT CHARACTER}"  # what part of a character decodes to
_MOST_TOKENS_A_CHARACTER = 64  # bytes that never become a character must not be held for ever
_BREAK, _TAB, _PICTURES = "\n", "\t", 0x2400


@dataclass(frozen=True, slots=True)
class Piece:
    """The fewest tokens that are whole characters, all learnt or all given."""

    text: str
    ids: tuple[int, ...]
    learnt: bool
    special: bool


def pieces(batch: Batch, row: int, tokenizer: Any) -> list[Piece]:
    """One row of a micro-batch without its padding; a token is learnt where the loss, which
    compares position t with label t + 1, meets it."""
    ids = batch.input_ids[row].tolist()
    if batch.attention_mask is not None:
        ids = ids[: int(batch.attention_mask[row].sum())]
    labels = batch.labels[row].tolist()
    learnt = [False, *(label != IGNORED for label in labels[1 : len(ids)])]
    return list(_pieces(ids, learnt, tokenizer))


def labelled_pieces(row: EncodedRow, tokenizer: Any) -> list[Piece]:
    """A row of a classification: its text, given, and the name of its label, learnt."""
    ids = row.input_ids[:-1]
    text = _pieces(ids, [False] * len(ids), tokenizer)
    return [*text, Piece(f" {row.answer}", tuple(row.input_ids[-1:]), learnt=True, special=True)]


def pictured_pieces(row: EncodedRow, told: str) -> list[Piece]:
    """An image in words, given, and the name of its label, learnt."""
    *ids, label = row.input_ids
    seen = Piece(told, tuple(ids), learnt=False, special=False)
    return [seen, Piece(f" {row.answer}", (label,), learnt=True, special=True)]


def special_ids(tokenizer: Any) -> frozenset[int]:
    """The ids of tokens that no text is made of."""
    added = getattr(tokenizer, "added_tokens_decoder", {}).items()
    return frozenset(tokenizer.all_special_ids) | {n for n, token in added if token.special}


def visible(text: str) -> str:
    """Text with every sign that would not be seen, or would steer a terminal, made visible."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else _picture(letter) for letter in text)


def _picture(letter: str) -> str:
    if letter == _BREAK:
        return "⏎\n"
    if letter == _TAB:
        return "⇥   "
    if letter < " ":
        return chr(_PICTURES + ord(letter))
    joins = letter in "\u200c\u200d"  # they hold scripts and emoji together
    space = unicodedata.category(letter) == "Zs"
    if joins or (space and letter != "\N{NO-BREAK SPACE}"):
        return letter
    return f"⟨U+{ord(letter):04X}⟩"


def _pieces(ids: Sequence[int], learnt: Sequence[bool], tokenizer: Any) -> Iterator[Piece]:
    special = special_ids(tokenizer)
    starts = [at for at in range(len(ids)) if _parts(at, ids, learnt, special)]
    before: list[int] = []
    for start, end in pairwise([*starts, len(ids)]):
        run = ids[start:end]
        if run[0] in special:
            text = _decode(tokenizer, run)
            yield Piece(text, tuple(run), learnt[start], special=True)
            before = []
            continue
        for text, own in _characters(run, before, tokenizer):
            yield Piece(text, own, learnt[start], special=False)
            before = list(own)


def _parts(at: int, ids: Sequence[int], learnt: Sequence[bool], special: frozenset[int]) -> bool:
    """Whether no piece may reach over the border in front of a token."""
    return at == 0 or learnt[at] != learnt[at - 1] or ids[at] in special or ids[at - 1] in special


def _characters(
    run: Sequence[int], before: list[int], tokenizer: Any
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Text and ids, token by token where each is whole characters.

    What stands before is decoded along: a tokenizer may write a token without its space when it
    stands first.
    """
    waiting: list[int] = []
    for number, token in enumerate(run, start=1):
        waiting.append(token)
        text = _continuation(before, waiting, tokenizer)
        held = text.endswith(PARTIAL) and len(waiting) < _MOST_TOKENS_A_CHARACTER
        if held and number < len(run):
            continue
        yield text, tuple(waiting)
        before, waiting = waiting, []


def _continuation(before: list[int], ids: list[int], tokenizer: Any) -> str:
    if not before:
        return _decode(tokenizer, ids)
    first, both = _decode(tokenizer, before), _decode(tokenizer, [*before, *ids])
    return both[len(first) :] if both.startswith(first) else _decode(tokenizer, ids)


def _decode(tokenizer: Any, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))
