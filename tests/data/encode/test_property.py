"""Random conversations over all built-in templates: what is learnt, and what is given."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from qtune.data.encode.encoder import Encoder
from qtune.data.encode.layouts import layout_for
from qtune.data.encode.tokens import Tokens
from qtune.data.faults import Faults
from qtune.data.report import SourceReport
from qtune.data.row import Example, Turn
from qtune.data.rows import Encoded
from qtune.recipe.inputs import DataSection, SourceSection
from qtune.templates import ENDS, text_of
from tests.data.encode.builtins import SPECIALS, built_in
from tests.data.test_real import REAL, needs_real

MARKS = sorted({"<s>", "</s>", "<pad>", *(mark for marks in SPECIALS.values() for mark in marks)})
TYPED = [*MARKS, "ASSISTANT:", "### Response:\n", "\n\n", " ", "\r\n", "{{ 1 }}", "<think>", "a"]
# The character that the encoder keeps for itself and refuses in a text.
LETTERS = st.characters(exclude_characters="\U000f0000", exclude_categories=("Cs",))
TEXTS = st.lists(
    st.one_of(st.sampled_from(TYPED), st.text(LETTERS, max_size=8)), min_size=1, max_size=4
).map("".join)
TRIMMING = {"gemma", "llama-3"}
BLANK_BEFORE = {"mistral", "vicuna"}


@st.composite
def conversations(draw: st.DrawFn) -> tuple[Turn, ...]:
    """Perhaps a system text, then questions and answers in turn."""
    turns = [Turn("system", draw(TEXTS))] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 3))):
        turns += [Turn("user", draw(TEXTS)), Turn("assistant", draw(TEXTS), train=True)]
    return tuple(turns)


@cache
def tokenizer(name: str) -> PreTrainedTokenizerFast:
    return built_in(name)


def encode(name: str, turns: tuple[Turn, ...], tools: tuple[dict[str, Any], ...] = ()) -> Encoded:
    return encode_with(tokenizer(name), turns, tools)


def encode_with(
    made: PreTrainedTokenizerFast, turns: tuple[Turn, ...], tools: tuple[dict[str, Any], ...] = ()
) -> Encoded:
    tokens = Tokens(made)
    data = DataSection(train=(SourceSection(path="x"),), max_length=100_000)
    encoder = Encoder(tokens, layout_for("chat", tokens), data, train_on="assistant", cut=False)
    faults = Faults()
    rows = list(
        encoder.encode([Example("x", 1, turns, tools=tools)], SourceReport("", "", "", ""), faults)
    )
    faults.raise_if_any()
    (row,) = rows
    return row


def stretches(row: Encoded) -> list[tuple[int, int]]:
    """Where the learnt stretches begin and end."""
    padded = [False, *row.learnt, False]
    begins = [n for n in range(len(row.learnt)) if padded[n + 1] and not padded[n]]
    ends = [n + 1 for n in range(len(row.learnt)) if padded[n + 1] and not padded[n + 2]]
    return list(zip(begins, ends, strict=True))


def messages(turns: tuple[Turn, ...]) -> list[dict[str, Any]]:
    return [{"role": turn.role, "content": turn.text} for turn in turns]


@hypothesis.settings(max_examples=300, deadline=None, derandomize=True)
@hypothesis.given(name=st.sampled_from(sorted(ENDS)), turns=conversations())
def test_answers_and_their_ends_are_learnt_and_nothing_else(
    name: str, turns: tuple[Turn, ...]
) -> None:
    made = tokenizer(name)
    row = encode(name, turns)
    found = stretches(row)
    answers = [number for number, turn in enumerate(turns) if turn.train]
    end = made.convert_tokens_to_ids(ENDS[name] or "</s>")
    assert len(found) == len(answers)
    for (begin, stop), number in zip(found, answers, strict=True):
        text = turns[number].text.strip() if name in TRIMMING else turns[number].text
        text = f" {text}" if name in BLANK_BEFORE else text
        assert made.decode(row.ids[begin : stop - 1]) == text
        assert row.ids[stop - 1] == end
        prompt = made.apply_chat_template(
            messages(turns[:number]), tokenize=False, add_generation_prompt=True
        )
        assert made.decode(row.ids[:begin]) == prompt
        before = "".join(turn.text for turn in turns[:number])
        if not any(mark in before for mark in MARKS):
            assert row.ids[:begin] == made(prompt, add_special_tokens=False)["input_ids"]


@hypothesis.settings(max_examples=100, deadline=None, derandomize=True)
@hypothesis.given(name=st.sampled_from(sorted(ENDS)), turns=conversations())
def test_special_tokens_in_a_text_never_count_as_such(name: str, turns: tuple[Turn, ...]) -> None:
    made = tokenizer(name)
    tame = tuple(turn._replace(text="x") for turn in turns)
    row, other = encode(name, turns), encode(name, tame)
    for token in made.all_special_ids:
        assert row.ids.count(token) == other.ids.count(token)


ARGUMENTS = st.dictionaries(
    st.text(LETTERS, min_size=1, max_size=4),
    st.one_of(TEXTS, st.integers(), st.lists(TEXTS, max_size=2)),
    max_size=2,
)


@hypothesis.settings(max_examples=60, deadline=None, derandomize=True)
@hypothesis.given(question=TEXTS, arguments=ARGUMENTS, result=TEXTS)
def test_calls_are_learnt_and_results_are_not(
    question: str, arguments: dict[str, Any], result: str
) -> None:
    call = {"type": "function", "function": {"name": "look", "arguments": arguments}}
    tool = {"type": "function", "function": {"name": "look", "parameters": {}}}
    turns = (
        Turn("user", question),
        Turn("assistant", "", train=True, tool_calls=(call,)),
        Turn("tool", result, name="look"),
        Turn("assistant", "So.", train=True),
    )
    made = tokenizer("qwen")
    row = encode("qwen", turns, tools=(tool,))
    written = json.dumps(arguments, ensure_ascii=False)
    wanted = f'<tool_call>\n{{"name": "look", "arguments": {written}}}\n</tool_call><|im_end|>'
    found = [made.decode(row.ids[begin:end]) for begin, end in stretches(row)]
    assert found == [wanted, "So.<|im_end|>"]
    assert row.ids.count(made.convert_tokens_to_ids("<|im_end|>")) == 5


REAL_TOKENIZERS = [
    ("tokenizers/gpt2", "alpaca"),
    ("tokenizers/gpt2", "zephyr"),
    ("tokenizers/minimind", "chatml"),
    ("tokenizers/minimind", "qwen"),
    ("model", "mistral"),
    ("model", "vicuna"),
]


@needs_real
@pytest.mark.parametrize(("folder", "name"), REAL_TOKENIZERS)
def test_real_tokenizers_are_prompted_as_a_server_prompts_them(folder: str, name: str) -> None:
    made = AutoTokenizer.from_pretrained(REAL / folder)
    if made.eos_token is None:  # the folder of gpt2 holds tokenizer.json alone
        made.add_special_tokens({"eos_token": "<|endoftext|>", "bos_token": "<|endoftext|>"})
    made.chat_template = text_of(name)
    turns = (
        Turn("system", "Be  brief."),
        Turn("user", "Once upon a time?\n"),
        Turn("assistant", "Lily's  dog was né.", train=True),
    )
    row = encode_with(made, turns)
    ((begin, stop),) = stretches(row)
    served = made.apply_chat_template(messages(turns[:2]), add_generation_prompt=True)
    assert row.ids[:begin] == served["input_ids"]
    end = made.convert_tokens_to_ids(ENDS[name] or made.eos_token)
    assert row.ids[stop - 1] == end
    assert made.decode(row.ids[begin : stop - 1]).strip() == turns[-1].text
