"""Text to ids from the fields of a GGUF file alone, by llama.cpp's rules; for checking a file.

Byte-level: cut by the named expressions, then the pair whose merge ranks first, leftmost, until
none is left. SentencePiece: neighbours whose joint text is a token are joined, best score first.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

from qtune.errors import CheckError
from qtune.gguf.pretokenizers import KNOWN, words
from qtune.gguf.vocabulary import SPACE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

PROBES = (
    "The quick brown fox jumps over 12 lazy dogs.",
    "  It's   3,141.59 — isn't it?\n\n\tYES, I'LL say \u00fcber-na\u00efve caf\u00e9s\n",
    "def f(x):\n    return x**2  # \u03c0\u22483.14159\n",
    "\u4f60\u597d\uff0c\u4e16\u754c! \u041f\u0440\u0438\u0432\u0435\u0442 1234567890",
    "smile \U0001f680\U0001f600",
)


class Speller:
    """The tokenizer that a file's fields describe; special tokens in a text are not looked for."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        own = {
            key.removeprefix("tokenizer.ggml."): value
            for key, value in fields.items()
            if key.startswith("tokenizer.ggml.")
        }
        self._tokens = {token: number for number, token in enumerate(own["tokens"])}
        self._scores = own.get("scores", [])
        self._ranks = {tuple(pair.split(" ")): n for n, pair in enumerate(own.get("merges", []))}
        self._pre = own.get("pre", "default")
        self._prefix = bool(own.get("add_space_prefix", False))
        self._unknown = own.get("unknown_token_id", 0)
        self._kind = own["model"]

    @property
    def knows(self) -> bool:
        """Whether these rules can be followed: the expressions of a foreign name are not known."""
        return self._kind == "llama" or (self._kind == "gpt2" and self._pre in KNOWN)

    def ids(self, text: str) -> list[int]:
        """The ids of a text, without BOS and EOS."""
        if self._kind == "llama":
            return self._pieces(text)
        cut = KNOWN[self._pre]
        return [number for word in words(text, cut) for number in self._word(word, cut.whole)]

    def _word(self, word: str, whole: bool) -> list[int]:
        letters = [_LETTERS[byte] for byte in word.encode()]
        if whole and "".join(letters) in self._tokens:
            return [self._tokens["".join(letters)]]

        def rank(left: str, right: str) -> float:
            return self._ranks.get((left, right), math.inf)

        return [self._tokens[symbol] for symbol in _join(letters, rank)]

    def _pieces(self, text: str) -> list[int]:
        marked = ((" " if self._prefix and text else "") + text).replace(" ", SPACE)

        def rank(left: str, right: str) -> float:
            number = self._tokens.get(left + right)
            return math.inf if number is None else -self._scores[number]

        found: list[int] = []
        for symbol in _join(list(marked), rank):
            if symbol in self._tokens:
                found.append(self._tokens[symbol])
                continue
            names = [f"<0x{byte:02X}>" for byte in symbol.encode()]
            found += [self._tokens.get(name, self._unknown) for name in names]
        return found


def check(fields: Mapping[str, Any], tokenizer: Any, texts: Sequence[str]) -> int:
    """The number of texts that the file spells as the tokenizer does; `CheckError` for another
    spelling, 0 where qtune cannot follow the file's rules."""
    speller = Speller(fields)
    if not speller.knows:
        return 0
    for text in texts:
        ours, theirs = speller.ids(text), tokenizer(text, add_special_tokens=False).input_ids
        if ours != theirs:
            place = next(
                (n for n, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b),
                min(len(ours), len(theirs)),
            )
            raise CheckError(
                f"llama.cpp would read {text[:40]!r} as other tokens than the tokenizer does, from "
                f"token {place} on",
                place="tokenizer",
                hint="nothing was written; serve the merged folder with a tool that reads it",
            )
    return len(texts)


def _join(symbols: list[str], rank: Callable[[str, str], float]) -> list[str]:
    """Join the neighbours of the lowest rank, the leftmost of equals, while any has a rank."""
    while len(symbols) > 1:
        ranks = [rank(left, right) for left, right in itertools.pairwise(symbols)]
        best = min(ranks)
        if best == math.inf:
            break
        place = ranks.index(best)
        symbols[place : place + 2] = ["".join(symbols[place : place + 2])]
    return symbols


def _byte_letters() -> list[str]:
    """GPT-2's letter of each byte: printable ones stand for themselves."""
    plain = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    spare = iter(range(0x100, 0x200))
    return [chr(byte if byte in plain else next(spare)) for byte in range(256)]


_LETTERS = _byte_letters()
