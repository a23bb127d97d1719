"""Measures of generated texts against one or several references, each as a tally over rows.

exact_match, token_f1, rouge_l, numeric, pattern: the best reference of a row counts, 0 to 1.
bleu, chrf: of the whole corpus, 0 to 100, by sacrebleu with its defaults (Post 2018; Popovic 2015).
rouge_l: F of the longest common subsequence, by rouge-score (Lin 2004), without stemming.
"""

from __future__ import annotations

import importlib.util
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from qtune.errors import UsageError
from qtune.evaluation.extract import numeric_match, pattern_match
from qtune.evaluation.match import exact_match, token_f1
from qtune.evaluation.tally import Tally, mean_tally

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qtune.evaluation.tally import Floats

    Compare = Callable[[str, str], float]

NEEDS = {"bleu": "sacrebleu", "chrf": "sacrebleu", "rouge_l": "rouge_score"}


class Said(Protocol):
    """A generated text."""

    @property
    def text(self) -> str:
        """What the model wrote."""

    @property
    def references(self) -> tuple[str, ...]:
        """What was wanted: one text, or several that are equally good."""

    @property
    def stopped(self) -> bool:
        """Whether the model ended the text itself."""


def require(measures: Sequence[str], *, place: str) -> None:
    """`UsageError` with the line to type unless the packages of all measures are installed."""
    for name in measures:
        package = NEEDS.get(name)
        if package is not None and importlib.util.find_spec(package) is None:
            raise UsageError(
                f"{name} needs the package {package.replace('_', '-')}",
                place=place,
                hint="pip install 'qtune[eval]'",
            )


def tallies(
    said: Sequence[Said], measures: Sequence[str], *, pattern: str | None = None
) -> dict[str, Tally]:
    """The measures by name; `pattern` is the regular expression of the measure of that name."""
    return {name: _tally(name, said, pattern) for name in measures}


def _tally(name: str, said: Sequence[Said], pattern: str | None) -> Tally:
    if name == "stopped":
        return mean_tally([float(one.stopped) for one in said])
    if name in ("bleu", "chrf"):
        return _corpus(_sacrebleu(name), said)
    compare = _compare(name, pattern)
    return mean_tally([max(compare(one.text, ref) for ref in one.references) for one in said])


def _compare(name: str, pattern: str | None) -> Compare:
    """How one measure compares a text with a reference."""
    if name == "rouge_l":
        return _rouge_l()
    if name == "pattern":
        assert pattern is not None
        return partial(pattern_match, pattern=pattern)
    known: dict[str, Compare] = {
        "exact_match": exact_match,
        "token_f1": token_f1,
        "numeric": numeric_match,
    }
    return known[name]


def _rouge_l() -> Compare:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"])
    return lambda text, reference: float(scorer.score(reference, text)["rougeL"].fmeasure)


def _sacrebleu(name: str) -> Any:
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    # force: a text that ends in a tokenised period is not worth a warning
    return BLEU(force=True) if name == "bleu" else CHRF()


def _corpus(metric: Any, said: Sequence[Said]) -> Tally:
    """A corpus measure of sacrebleu by the sums that its own significance tests draw from."""
    most = max((len(one.references) for one in said), default=1)
    streams = [
        [one.references[place] if place < len(one.references) else None for one in said]
        for place in range(most)
    ]
    rows = metric._extract_corpus_statistics([one.text for one in said], streams)

    def score(sums_DK: Floats) -> Floats:
        found = [metric._compute_score_from_stats(_whole(sums_K)).score for sums_K in sums_DK]
        return np.array(found, dtype=np.float64)

    return Tally(np.array(rows, dtype=np.float64), score)


def _whole(sums_K: Floats) -> list[int]:
    """Counts as whole numbers, which sacrebleu's smoothing asks for."""
    return [int(count) for count in sums_K]
