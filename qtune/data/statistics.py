"""What the encoded rows are like: lengths, learnt share, fill of the tensors, scripts, doubles."""

from __future__ import annotations

import unicodedata
from collections import Counter
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from qtune.data.rows import Rows

QUANTILES = (5, 25, 50, 75, 95, 99)
SAMPLE = 1000
_MOST_BARS = 16
_FEW_LETTERS = 0.001
_RENAMED = {"CJK": "Han", "FULLWIDTH": "Latin", "HALFWIDTH": "Katakana", "MATHEMATICAL": "Latin"}


@dataclass(frozen=True, slots=True)
class Bar:
    """The rows of `low` to `high` tokens: how many, and their tokens given and learnt."""

    low: int
    high: int
    rows: int
    given: int
    learnt: int

    def to_dict(self) -> dict[str, int]:
        """For JSON."""
        return {name: getattr(self, name) for name in self.__slots__}


def quantiles(lengths: NDArray[np.int64]) -> dict[str, int]:
    """Tokens that so many per cent of the rows do not exceed."""
    found = np.percentile(lengths, QUANTILES, method="inverted_cdf")
    return {f"p{share}": int(value) for share, value in zip(QUANTILES, found, strict=True)}


def histogram(lengths: NDArray[np.int64], learnt: NDArray[np.int64]) -> list[Bar]:
    """Bars of even width, a round number of tokens, that hold every row."""
    width = _round_width(int(lengths.max()))
    at = (lengths - 1) // width
    count = int(at.max()) + 1
    rows, tokens, own = (
        np.bincount(at, weights=weights, minlength=count).astype(np.int64)
        for weights in (None, lengths, learnt)
    )
    return [
        Bar(
            low=n * width + 1,
            high=(n + 1) * width,
            rows=int(rows[n]),
            given=int(tokens[n] - own[n]),
            learnt=int(own[n]),
        )
        for n in range(count)
    ]


def sample(rows: Rows, tokenizer: Any) -> list[str]:
    """The text of at most a thousand rows, evenly spread, without special tokens."""
    chosen = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), SAMPLE)).astype(int)).tolist()
    texts: list[str] = tokenizer.batch_decode(
        [rows[number].input_ids for number in chosen], skip_special_tokens=True
    )
    return texts


def scripts(texts: Iterable[str]) -> dict[str, float]:
    """The share of each script among the letters, the largest first; traces are left out."""
    letters = Counter("".join(texts))
    counts: Counter[str] = Counter()
    for letter, count in letters.items():
        if letter.isalpha():
            counts[_script(letter)] += count
    total = counts.total()
    return {
        name: round(count / total, 4)
        for name, count in counts.most_common()
        if count / total >= _FEW_LETTERS
    }


def _round_width(longest: int) -> int:
    """The smallest of 1, 2, 5, 10, 20, 50 ... with which few bars are enough."""
    scale = 1
    while True:
        for step in (1, 2, 5):
            if step * scale * _MOST_BARS >= longest:
                return step * scale
        scale *= 10


@cache
def _script(letter: str) -> str:
    """The first word of a letter's Unicode name is its script."""
    word = unicodedata.name(letter, "OTHER").partition(" ")[0].partition("-")[0]
    return _RENAMED.get(word, word.title())
