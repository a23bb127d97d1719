"""Questions with lettered choices."""

from __future__ import annotations

from typing import Any

import pytest

from qtune.data.row import Turn
from tests.data.formats.reading import only, refuse

CHOICES = ["red", "green", "blue"]
ARC = {"text": CHOICES, "label": ["1", "2", "3"]}


@pytest.mark.parametrize(
    ("choices", "gold"),
    [(CHOICES, 1), (CHOICES, "B"), (CHOICES, "green"), (ARC, "2"), (ARC, 1)],
)
def test_the_letter_of_the_right_choice_is_learnt(choices: Any, gold: Any) -> None:
    found = only("multiple-choice", {"query": "Grass is?", "choices": choices, "gold": gold})
    prompt = "Grass is?\nA. red\nB. green\nC. blue\nAnswer:\n"
    assert found.turns == (Turn("prompt", prompt), Turn("completion", "B", train=True))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"query": ""}, "query: is empty"),
        ({"query": 3}, "query: is a number, text is needed"),
        ({"choices": None}, "choices: is null, a list of texts is needed"),
        ({"choices": []}, "choices: has 0 choices, 2 to 26 are needed"),
        ({"choices": ["a"]}, "choices: has 1 choices, 2 to 26 are needed"),
        ({"choices": ["a"] * 27}, "choices: has 27 choices, 2 to 26 are needed"),
        ({"choices": ["a", None]}, "choices: choice 2 is null, text is needed"),
        ({"choices": ["a", " "]}, "choices: choice 2 is empty"),
        ({"gold": 3}, "gold: is 3, choices count from 0 to 2"),
        ({"gold": -1}, "gold: is -1, choices count from 0 to 2"),
        ({"gold": True}, "gold: is a boolean, text is needed"),
        ({"gold": None}, "gold: is null, text is needed"),
        ({"gold": "D"}, "gold: 'D' is none of the choices (a number from 0 to 2, a letter, or"),
    ],
)
def test_faulty_questions(row: dict[str, Any], message: str) -> None:
    good = {"query": "Grass is?", "choices": CHOICES, "gold": 1}
    refuse("multiple-choice", {**good, **row}, message)
