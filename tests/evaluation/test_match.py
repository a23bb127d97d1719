"""Exact match and token F1 on cases worked out by hand."""

from __future__ import annotations

import pytest

from qtune.evaluation.match import exact_match, token_f1, words


@pytest.mark.parametrize(
    ("text", "reference", "value"),
    [
        (" Paris\n", "Paris", 1.0),
        ("paris", "Paris", 0.0),
        ("Paris.", "Paris", 0.0),
        ("", "  ", 1.0),
    ],
)
def test_exact_match(text: str, reference: str, value: float) -> None:
    assert exact_match(text, reference) == value


@pytest.mark.parametrize(
    ("text", "reference", "value"),
    [
        ("The cat sat.", "cat sat", 1.0),
        ("a cat", "the dog", 0.0),
        ("red red blue", "red blue blue", 2 / 3),  # red and blue once each: 2/3 and 2/3
        ("one two three four", "two", 0.4),  # precision 1/4, recall 1
        ("", "", 1.0),
        ("the", "", 1.0),  # nothing is left of it
        ("word", "", 0.0),
    ],
)
def test_token_f1(text: str, reference: str, value: float) -> None:
    assert token_f1(text, reference) == pytest.approx(value)


def test_words_keep_what_only_begins_like_an_article() -> None:
    assert words("Another theory: an anthem, THE end!") == ["another", "theory", "anthem", "end"]
