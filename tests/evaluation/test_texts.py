"""Measures of texts against the libraries' own functions and against answers known by hand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from qtune.errors import UsageError
from qtune.evaluation.extract import found_in, number_in, numeric_match, pattern_match
from qtune.evaluation.texts import require, tallies

TEXTS = [
    "The cat sat on the mat.",
    "A coffee shop called Blue Spice is in the city centre.",
    "Nothing of it",
    "Blue Spice is a coffee shop near the river.",
]
REFERENCES = [
    ("The cat is sitting on the mat.", "There is a cat on the mat."),
    ("Blue Spice is a coffee shop in the city centre.",),
    ("Something else", "Nothing of it", "Nothing at all"),
    ("There is a coffee shop Blue Spice in the riverside area.",),
]


@dataclass(frozen=True)
class Line:
    text: str
    references: tuple[str, ...]
    stopped: bool = True


LINES = [Line(text, references) for text, references in zip(TEXTS, REFERENCES, strict=True)]


@pytest.mark.parametrize("name", ["bleu", "chrf"])
def test_corpus_scores_are_sacrebleus(name: str) -> None:
    metrics = pytest.importorskip("sacrebleu.metrics")
    metric = metrics.BLEU() if name == "bleu" else metrics.CHRF()
    streams = [[r[n] if n < len(r) else None for r in REFERENCES] for n in range(3)]
    found = tallies(LINES, [name])[name]
    assert found.value == pytest.approx(metric.corpus_score(TEXTS, streams).score, abs=1e-9)
    alone = metric.corpus_score(TEXTS[:1], [[one] for one in REFERENCES[0]]).score
    assert found.by_row[0] == pytest.approx(alone, abs=1e-9)
    interval = found.interval()
    assert interval.low <= found.value <= interval.high


def test_the_chance_of_a_bleu_is_near_sacrebleus() -> None:
    significance = pytest.importorskip("sacrebleu.significance")
    metrics = pytest.importorskip("sacrebleu.metrics")
    # sacrebleu counts larger differences only, so the rows must differ in many ways
    random = np.random.default_rng(4)
    words = [f"w{number}" for number in range(40)]
    wanted = [" ".join(random.choice(words, size=random.integers(6, 14))) for _ in range(60)]

    def noisy(share: float) -> list[str]:
        return [" ".join(w for w in t.split() if random.random() > share) or "w" for t in wanted]

    worse, better = noisy(0.27), noisy(0.25)
    sides = [
        tallies([Line(t, (w,)) for t, w in zip(side, wanted, strict=True)], ["bleu"])["bleu"]
        for side in (better, worse)
    ]
    ours = sides[0].beyond(sides[1], "bleu")
    _, scores = significance.PairedTest(
        [("worse", worse), ("better", better)],
        {"BLEU": metrics.BLEU()},
        [wanted],
        test_type="ar",
        n_samples=2000,
    )()
    theirs = scores["BLEU"][1]
    assert sides[0].value == pytest.approx(theirs.score)
    assert ours["bleu_p"] == pytest.approx(theirs.p_value, abs=0.04)


def test_rouge_l_is_rouge_scores_best_reference() -> None:
    scoring = pytest.importorskip("rouge_score.rouge_scorer")
    scorer = scoring.RougeScorer(["rougeL"])
    expected = [
        scorer.score_multi(list(references), text)["rougeL"].fmeasure
        for text, references in zip(TEXTS, REFERENCES, strict=True)
    ]
    assert tallies(LINES, ["rouge_l"])["rouge_l"].by_row == pytest.approx(expected)


def test_the_best_reference_counts() -> None:
    found = tallies(LINES, ["exact_match", "token_f1", "stopped"])
    assert found["exact_match"].by_row == [0.0, 0.0, 1.0, 0.0]
    assert found["token_f1"].by_row[2] == 1.0
    assert found["stopped"].value == 1.0


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("so 3 + 4 = 7\n#### 1,234", "1234"),
        ("She pays $3.50 for 12 eggs, so 42.00", "42"),
        ("#### -5 and 6 more", "-5"),
        ("1e3", "1000"),
        ("#### -$5", "-5"),
        ("#### $-5", "-5"),
        ("it is \u22125", "-5"),
        ("x=-.5", "-0.5"),
        ("between 10-12", "12"),
        ("from $10-$12", "12"),
        ("5%-10%", "10"),
        ("Room A-5", "5"),
        ("none at all", None),
        ("the answer is 7.", "7"),
    ],
)
def test_numbers(text: str, number: str | None) -> None:
    found = number_in(text)
    assert (found is None) == (number is None)
    if number is not None:
        assert numeric_match(text, f"#### {number}") == 1.0
        assert numeric_match(text, f"#### {number}1") == 0.0


def test_patterns() -> None:
    pattern = r"(?i)answer is \(?([A-D])\)?"
    assert found_in("The Answer is (b).", pattern) == "b"
    assert pattern_match("the answer is B", "the answer is B, I say", pattern) == 1.0
    assert pattern_match("the answer is B", "B", pattern) == 1.0
    assert pattern_match("it is B", "B", pattern) == 0.0
    line = Line("answer is C", ("A", "C"))
    assert tallies([line], ["pattern"], pattern=pattern)["pattern"].value == 1.0


def test_a_missing_package_is_told_with_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    require(["exact_match", "numeric"], place="x")
    with pytest.raises(UsageError, match=r"rouge-score.*pip install 'qtune\[eval\]'"):
        require(["exact_match", "rouge_l"], place="x")
