"""What is learnt of a conversation is the answers and their end, byte for byte."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from qtune.data import EncodedRow, prepare, prompter
from qtune.errors import DataError
from qtune.recipe.inputs import LossSection, ModelSection
from tests.data.building import chat, encoded, recipe, spans, write_jsonl
from tests.data.encode import templates
from tests.tiny import CHAT_TEMPLATE, tiny_tokenizer

ONE = (("user", "What is 2 + 2?"), ("assistant", "Four, née 4.\n Or: five?"))
MANY = (
    ("system", "Be brief."),
    ("user", "Hi"),
    ("assistant", "Hello you"),
    ("user", "2 + 2?"),
    ("assistant", "Four."),
)
SOUND = {
    "tiny": (CHAT_TEMPLATE, "", "</s>"),
    "chatml": (templates.CHATML, "", "<|im_end|>"),
    "inst": (templates.INST, " ", "</s>"),
    "trimmed": (templates.TRIMMED, "", "<|end|>"),
    "thinking": (templates.THINKING, "", "<|im_end|>"),
    "marked": (templates.MARKED, "", "<|end|>"),
    "endless": (templates.ENDLESS, " ", "</s>"),
    "last end": (templates.LAST_END, "", "</s>"),
}


def tokenizer(template: str) -> PreTrainedTokenizerFast:
    made = tiny_tokenizer()
    made.add_special_tokens({"additional_special_tokens": templates.SPECIALS})
    made.chat_template = template
    return made


def row(folder: Path, template: str, *turns: tuple[str, str]) -> EncodedRow:
    made = tokenizer(template)
    return encoded(folder, [chat(*turns)], tokenizer=made).train[0]


@pytest.mark.parametrize("name", SOUND)
@pytest.mark.parametrize("turns", [ONE, MANY], ids=["one", "many"])
def test_learnt_text_is_the_answers_and_their_end(
    tmp_path: Path, name: str, turns: tuple[tuple[str, str], ...]
) -> None:
    template, before, end = SOUND[name]
    found = spans(row(tmp_path, template, *turns), tokenizer(template))
    answers = [text for role, text in turns if role == "assistant"]
    assert found == [f"{before}{text}{end}" for text in answers]


@pytest.mark.parametrize("name", [n for n in SOUND if n not in ("endless", "last end")])
def test_the_whole_row_is_the_rendering(tmp_path: Path, name: str) -> None:
    template = SOUND[name][0]
    made = tokenizer(template)
    wanted = made.apply_chat_template(chat(*MANY)["messages"], tokenize=False)
    got = row(tmp_path, template, *MANY)
    assert made.decode(got.input_ids, skip_special_tokens=False) == wanted


@pytest.mark.parametrize("name", ["tiny", "chatml", "inst", "trimmed", "endless", "last end"])
@pytest.mark.parametrize("turns", [ONE, MANY], ids=["one", "many"])
def test_the_prompt_is_what_a_server_would_feed(
    tmp_path: Path, name: str, turns: tuple[tuple[str, str], ...]
) -> None:
    template = SOUND[name][0]
    got = row(tmp_path, template, *turns)
    made = tokenizer(template)
    prompt = chat(*turns[:-1])["messages"]
    served = made.apply_chat_template(prompt, add_generation_prompt=True)["input_ids"]
    assert got.prompt_ids is not None
    assert got.prompt_ids == got.input_ids[: len(got.prompt_ids)]
    assert got.answer == turns[-1][1]
    if name in ("endless", "last end") and len(turns) > 2:
        # Earlier answers end with nothing here, so an end of sequence was put behind them.
        served_text = made.decode(served)
        assert made.decode(got.prompt_ids).replace("you</s>", "you") == served_text
    else:
        assert got.prompt_ids == served


def test_trimming_templates_lose_only_white_space(tmp_path: Path) -> None:
    made = tokenizer(templates.TRIMMED)
    got = row(tmp_path, templates.TRIMMED, ("user", "a"), ("assistant", "  b\n c "))
    assert spans(got, made) == ["b\n c<|end|>"]


def test_an_answer_that_also_stands_in_the_prompt_is_found_in_its_place(tmp_path: Path) -> None:
    turns = (("user", "a"), ("assistant", "a"), ("user", "assistant"), ("assistant", "user"))
    got = row(tmp_path, templates.THINKING, *turns)
    assert spans(got, tokenizer(templates.THINKING)) == ["a<|im_end|>", "user<|im_end|>"]


def test_a_thinking_block_is_given_and_said(tmp_path: Path) -> None:
    made = tokenizer(templates.THINKING)
    prepared = encoded(tmp_path, [chat(*ONE)], tokenizer=made)
    prompt = made.decode(prepared.train[0].prompt_ids)
    assert prompt.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert any("<think>" in line for line in prepared.report.lines())


def test_answers_that_say_train_false_are_given(tmp_path: Path) -> None:
    value = chat(*MANY)
    value["messages"][2]["train"] = False
    got = encoded(tmp_path, [value]).train[0]
    assert spans(got, tiny_tokenizer()) == ["Four.</s>"]


def test_train_on_all_learns_all_but_the_first_token(tmp_path: Path) -> None:
    got = encoded(tmp_path, [chat(*MANY)], train_on="all").train[0]
    assert got.labels == [-100, *got.input_ids[1:]]


def test_a_conversation_may_begin_with_an_answer(tmp_path: Path) -> None:
    got = row(tmp_path, templates.CHATML, ("assistant", "Hello"), ("user", "Bye"))
    assert spans(got, tokenizer(templates.CHATML)) == ["Hello<|im_end|>"]


def test_a_system_text_that_moves_makes_a_row_of_each_answer(tmp_path: Path) -> None:
    value = chat(*MANY)
    made = tokenizer(templates.MOVING)
    prepared = encoded(tmp_path, [value], tokenizer=made)
    asked = [number for number, (role, _) in enumerate(MANY) if role == "assistant"]
    assert len(prepared.train) == len(asked) == prepared.report.train_sources[0].unrolled
    for row, number in zip(prepared.train, asked, strict=True):
        messages = value["messages"][:number]
        prompt = made.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        assert made.decode(row.prompt_ids) == prompt
        (learnt,) = spans(row, made)
        assert learnt.strip() == f"{MANY[number][1]}</s>"
        assert row.answer == MANY[number][1]
    value["messages"][2]["train"] = False
    assert spans(encoded(tmp_path, [value], tokenizer=made).train[0], made) == ["Four.</s>"]


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (templates.OTHER_PROMPT, "another prompt for generating than in a finished conversation"),
        (templates.REWRITING, "rewrites or leaves out the text of turn 2"),
        (templates.REFUSING, "refuses this conversation: System role not supported"),
        ("{{ messages[0].content + 1 }}", "refuses this conversation"),
        (templates.TWO_BEGINNINGS, "<s> stands twice at the beginning"),
    ],
    ids=["other prompt", "rewriting", "refusing", "faulty", "two beginnings"],
)
def test_a_template_that_cannot_be_masked_is_refused(
    tmp_path: Path, template: str, message: str
) -> None:
    with pytest.raises(DataError) as caught:
        row(tmp_path, template, *ONE)
    assert message in str(caught.value)
    assert caught.value.faults[0].place == "train.jsonl:1"


def test_no_template_at_all(tmp_path: Path) -> None:
    made = tiny_tokenizer()
    made.chat_template = None
    with pytest.raises(DataError, match=r"^train\.jsonl: the tokenizer has no chat template"):
        encoded(tmp_path, [chat(*ONE)], tokenizer=made)


def test_special_tokens_typed_in_a_text_stay_text_and_are_counted(tmp_path: Path) -> None:
    made = tokenizer(CHAT_TEMPLATE)
    turns = (("user", "What is </s> and <|im_end|>?"), ("assistant", "An <s>end</s>, I think."))
    prepared = encoded(tmp_path, [chat(*turns), chat(*ONE)], tokenizer=made)
    got = prepared.train[0]
    assert got.input_ids.count(made.bos_token_id) == 1
    assert got.input_ids.count(made.eos_token_id) == 1
    assert spans(got, made) == ["An <s>end</s>, I think.</s>"]
    wanted = made.apply_chat_template(chat(*turns)["messages"], tokenize=False)
    assert made.decode(got.input_ids, skip_special_tokens=False) == wanted
    assert prepared.report.to_dict()["train"]["sources"][0]["rows_with_typed_special_tokens"] == 1


def test_an_end_the_tokenizer_does_not_know_gets_an_end_of_sequence(tmp_path: Path) -> None:
    made = tiny_tokenizer()
    made.chat_template = templates.CHATML
    prepared = encoded(tmp_path, [chat(*MANY)], tokenizer=made)
    assert spans(prepared.train[0], made) == ["Hello you<|im_end|></s>", "Four.<|im_end|></s>"]
    assert prepared.train.stop_ids == (made.eos_token_id,)
    assert any("no end token" in line for line in prepared.report.lines())


def test_the_end_of_the_answers_is_what_generation_stops_at(tmp_path: Path) -> None:
    made = tokenizer(templates.CHATML)
    prepared = encoded(tmp_path, [chat(*ONE)], tokenizer=made)
    assert prepared.train.stop_ids == (made.convert_tokens_to_ids("<|im_end|>"),)


def test_variables_reach_every_render(tmp_path: Path) -> None:
    template = CHAT_TEMPLATE.replace("{% for", "{{ flavour }}{% for", 1)
    made = tokenizer(template)
    path = write_jsonl(tmp_path / "train.jsonl", [chat(*MANY)])
    asked = recipe(path)
    model = ModelSection(name_or_path="tiny", chat_template_kwargs={"flavour": "vanilla"})
    row = prepare(asked.model_copy(update={"model": model}), made).train[0]
    assert "vanilla" in made.decode(row.input_ids)
    assert prompter(made, asked.model_copy(update={"model": model})).ids("hi") != (
        prompter(made, asked).ids("hi")
    )


@pytest.mark.parametrize(("train_on", "expected"), [("last_assistant", [3]), ("field", [1])])
def test_which_answers_are_learnt(tmp_path: Path, train_on: str, expected: list[int]) -> None:
    turns = [("user", "a"), ("assistant", "one"), ("user", "b"), ("assistant", "two")]
    value = chat(*turns)
    value["messages"][1]["train"] = True
    made = tokenizer(CHAT_TEMPLATE)
    asked = recipe(write_jsonl(tmp_path / "train.jsonl", [value]))
    asked = asked.model_copy(update={"loss": LossSection(train_on=train_on)})
    row = prepare(asked, made).train[0]
    assert [text.removesuffix("</s>").strip() for text in spans(row, made)] == [
        turns[number][1] for number in expected
    ]
