"""What each format makes of a row."""

from __future__ import annotations

from typing import Any

import pytest

from qtune.data.formats import FORMATS
from qtune.data.row import Row, Turn
from qtune.recipe.inputs import SourceSection


def turns(name: str, values: dict[str, Any], **keys: Any) -> tuple[Turn, ...]:
    source = SourceSection(path="f", **keys)
    (example,) = FORMATS[name].examples(Row("f", 1, values), columns={}, source=source)
    turns: tuple[Turn, ...] = example.turns
    return turns


def test_alpaca_with_and_without_input() -> None:
    row = {"instruction": "i", "input": "", "output": "o"}
    assert turns("alpaca", row) == (Turn("instruction", "i"), Turn("assistant", "o", True))
    with_input = turns("alpaca", {**row, "input": "x"})
    assert with_input[1] == Turn("input", "x")


@pytest.mark.parametrize(
    ("said", "role"),
    [("human", "user"), ("Prompter", "user"), ("gpt", "assistant"), ("BARD", "assistant")],
)
def test_odd_spellings_of_sharegpt_roles(said: str, role: str) -> None:
    value = [{"from": said, "value": "x"}, {"from": "model", "value": "y"}]
    found = turns("sharegpt", {"conversations": value})
    assert found[0] == Turn(role, "x", role == "assistant")
    assert found[1] == Turn("assistant", "y", True)


@pytest.mark.parametrize("flag", [{"train": False}, {"weight": 0}])
def test_an_answer_may_say_that_it_is_not_learnt(flag: dict[str, Any]) -> None:
    value = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b", **flag},
        {"role": "assistant", "content": "c", "weight": 1},
    ]
    assert [turn.train for turn in turns("messages", {"messages": value})] == [False, False, True]


def test_a_prompt_template_takes_columns_and_numbers() -> None:
    row = {"a": "x", "n": 3, "completion": "y"}
    found = turns("prompt-completion", row, prompt_template="{{{a}}} {n}\n")
    assert found == (Turn("prompt", "{x} 3\n"), Turn("completion", "y", True))


def test_the_developer_is_the_system() -> None:
    value = [{"role": "developer", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert turns("messages", {"messages": value})[0] == Turn("system", "a")
