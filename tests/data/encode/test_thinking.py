"""Reasoning in front of an answer: learnt, given, or left out and counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from qtune.data import prepare
from qtune.recipe.inputs import LossSection
from tests.data.building import encoded, recipe, spans, write_jsonl
from tests.data.encode import templates
from tests.data.encode.builtins import built_in
from tests.data.encode.test_tools import with_specials, written
from tests.data.row_of_turns import asked, thought_out

ONE = (asked("A?"), thought_out("First\nso.", "One."))
TWO = (*ONE, asked("B?"), thought_out("Then.", "Two."))
END = "<|im_end|>"


def test_the_thought_is_learnt_with_the_answer() -> None:
    assert written(built_in("qwen"), *TWO, tools=[]) == [
        "<|im_start|>user\nA?<|im_end|>\n"
        "<|im_start|>assistant\n⟦<think>\nFirst\nso.\n</think>\n\nOne.<|im_end|>⟧\n"
        "<|im_start|>user\nB?<|im_end|>\n"
        "<|im_start|>assistant\n⟦<think>\nThen.\n</think>\n\nTwo.<|im_end|>⟧\n"
    ]


def test_the_thought_is_given_where_the_recipe_says_so() -> None:
    assert written(built_in("qwen"), *TWO, tools=[], thinking=False) == [
        "<|im_start|>user\nA?<|im_end|>\n"
        "<|im_start|>assistant\n<think>\nFirst\nso.\n</think>\n\n⟦One.<|im_end|>⟧\n"
        "<|im_start|>user\nB?<|im_end|>\n"
        "<|im_start|>assistant\n<think>\nThen.\n</think>\n\n⟦Two.<|im_end|>⟧\n"
    ]


@pytest.mark.parametrize("learns", [True, False])
def test_a_template_that_forgets_thoughts_makes_a_row_of_each_answer(learns: bool) -> None:
    rows = written(with_specials(templates.REASONING), *TWO, tools=[], thinking=learns)
    first, second = ("⟦", "") if learns else ("", "⟦")
    assert rows == [
        "<|im_start|>user\nA?<|im_end|>\n"
        f"<|im_start|>assistant\n<think>\n{first}First\nso.\n</think>\n\n{second}One.<|im_end|>⟧\n",
        "<|im_start|>user\nA?<|im_end|>\n<|im_start|>assistant\nOne.<|im_end|>\n"
        "<|im_start|>user\nB?<|im_end|>\n"
        f"<|im_start|>assistant\n<think>\n{first}Then.\n</think>\n\n{second}Two.<|im_end|>⟧\n",
    ]


def test_a_template_without_a_place_for_it_leaves_it_out_and_that_is_counted(
    tmp_path: Path,
) -> None:
    made = built_in("chatml")
    message = {"role": "assistant", "content": "One.", "reasoning_content": "First."}
    row = {"messages": [{"role": "user", "content": "A?"}, message]}
    prepared = encoded(tmp_path, [row], tokenizer=made)
    assert spans(prepared.train[0], made) == ["One.<|im_end|>"]
    assert any("1 rows lost the reasoning" in line for line in prepared.report.lines())
    assert prepared.report.to_dict()["train"]["sources"][0]["rows_without_their_reasoning"] == 1


@pytest.mark.parametrize(("learns", "learnt"), [(True, "<think>\nSo.\n</think>\n\n"), (False, "")])
def test_the_key_reaches_the_rows(tmp_path: Path, learns: bool, learnt: str) -> None:
    made = built_in("qwen")
    message = {"role": "assistant", "content": "One.", "reasoning_content": "So."}
    row = {"messages": [{"role": "user", "content": "A?"}, message]}
    asked_for = recipe(write_jsonl(tmp_path / "train.jsonl", [row]))
    loss = LossSection(train_on_thinking=learns)
    (found,) = prepare(asked_for.model_copy(update={"loss": loss}), made).train
    assert spans(found, made) == [f"{learnt}One.<|im_end|>"]


@pytest.mark.parametrize(
    ("template", "learns", "reference"),
    [
        ("qwen", True, "<think>\nSo.\n</think>\n\nOne </s>."),
        ("qwen", False, "One </s>."),
        ("chatml", True, "One </s>."),
    ],
)
def test_a_generated_answer_is_held_against_what_was_learnt(
    tmp_path: Path, template: str, learns: bool, reference: str
) -> None:
    message = {"role": "assistant", "content": "One </s>.", "reasoning_content": "So."}
    row = {"messages": [{"role": "user", "content": "A?"}, message]}
    asked_for = recipe(write_jsonl(tmp_path / "train.jsonl", [row]))
    loss = LossSection(train_on_thinking=learns)
    made = built_in(template)
    (found,) = prepare(asked_for.model_copy(update={"loss": loss}), made).train
    assert found.answer == reference
