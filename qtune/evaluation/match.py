"""How far an answer is the reference: exact match and token F1 (Rajpurkar et al. 2016)."""

from __future__ import annotations

import re
import string
from collections import Counter

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def exact_match(text: str, reference: str) -> float:
    """1.0 when both are the same text but for white space at the ends."""
    return float(text.strip() == reference.strip())


def token_f1(text: str, reference: str) -> float:
    """Harmonic mean of precision and recall over normalised words, with multiplicity."""
    said, wanted = words(text), words(reference)
    if not said or not wanted:
        return float(said == wanted)
    shared = sum((Counter(said) & Counter(wanted)).values())
    if shared == 0:
        return 0.0
    precision, recall = shared / len(said), shared / len(wanted)
    return 2 * precision * recall / (precision + recall)


def words(text: str) -> list[str]:
    """Lower case, without punctuation and English articles, split at white space (as in SQuAD)."""
    return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()
