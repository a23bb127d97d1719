"""Reasoning in front of an answer: learnt, given, or left out and counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from qtune.data import prepare
from qtune.data.row import Turn
from qtune.errors import DataError
from qtune.recipe.inputs import LossSection
from tests.data.building import encoded, recipe, spans, write_jsonl
from tests.data.encode import templates
from tests.data.encode.builtins import built_in
from tests.data.encode.test_tools import with_specials, written
from tests.data.row_of_turns import asked, thought_out
from tests.data.test_real import REAL, needs_real, with_template

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


def in_its_text(turn: Turn) -> Turn:
    """The same answer with its reasoning in front of its text."""
    text = f"<think>\n{turn.thinking}\n</think>\n\n{turn.text}" if turn.thinking else turn.text
    return turn._replace(text=text, thinking="")


@pytest.mark.parametrize("learns", [True, False])
def test_reasoning_in_the_text_is_learnt_as_the_template_writes_it(
    tmp_path: Path, learns: bool
) -> None:
    made = with_specials(templates.SPLITTING)
    turns = [in_its_text(turn) for turn in (asked("A</s>?"), *TWO[1:])]
    messages = [{"role": turn.role, "content": turn.text} for turn in turns]
    asked_for = recipe(write_jsonl(tmp_path / "train.jsonl", [{"messages": messages}]))
    loss = LossSection(train_on_thinking=learns)
    found = list(prepare(asked_for.model_copy(update={"loss": loss}), made).train)
    texts = [made.apply_chat_template(messages[:end], tokenize=False) for end in (2, 4)]
    assert [made.decode(row.input_ids) for row in found] == texts
    thoughts = ("<think>\nFirst\nso.\n</think>\n\n", "<think>\nThen.\n</think>\n\n")
    answers = [
        f"{thought if learns else ''}{answer}"
        for thought, answer in zip(thoughts, ("One.", "Two."), strict=True)
    ]
    assert [spans(row, made) for row in found] == [[f"{answer}{END}"] for answer in answers]
    assert [row.answer for row in found] == answers
    beside = written(made, *TWO, tools=[], thinking=learns)
    assert written(made, *map(in_its_text, TWO), tools=[], thinking=learns) == beside


def test_an_empty_thought_of_the_rows_own_is_learnt_as_it_stands() -> None:
    text = "<think>\n\n</think>\n\nOne."
    (row,) = written(with_specials(templates.SPLITTING), *ONE[:1], thought_out("", text), tools=[])
    assert row.endswith(f"<|im_start|>assistant\n⟦{text}{END}⟧\n")


@needs_real
@pytest.mark.parametrize("name", ["qwen3", "qwen3_5"])
def test_qwen_learns_reasoning_in_the_text_like_reasoning_beside_it(name: str) -> None:
    made = with_template(REAL / "chat_templates" / f"{name}.jinja")
    rows = written(made, *map(in_its_text, TWO), tools=[])
    assert rows == written(made, *TWO, tools=[])
    assert rows[1].endswith(f"⟦Then.\n</think>\n\nTwo.{END}⟧")


@pytest.mark.parametrize(
    "text",
    ["<think>\nSo.\n</think>\n\nOne.", "<think>a</think>One.<think>b</think>Two."],
)
def test_reasoning_that_a_template_takes_out_of_the_text_is_refused(text: str) -> None:
    dropping = templates.CHATML.replace("m.content", "m.content.split('</think>')[-1]")
    with pytest.raises(DataError, match=r"text of turn 2.*what stands before </think>"):
        written(with_specials(dropping), *ONE[:1], thought_out("", text), tools=[])


def test_a_prompt_that_opens_thoughts_otherwise_is_said(tmp_path: Path) -> None:
    opening = templates.REASONING.replace("assistant\n<think>\n{%", "assistant\n<think>\n\n{%")
    message = {"role": "assistant", "content": "One.", "reasoning_content": "So."}
    row = {"messages": [{"role": "user", "content": "A?"}, message]}
    prepared = encoded(tmp_path, [row], tokenizer=with_specials(opening))
    said = "before answers: '<|im_start|>assistant\\n<think>\\n\\n'"
    assert any(said in line for line in prepared.report.lines())
