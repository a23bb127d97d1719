"""Real files and real chat templates; skipped where they are not at hand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from qtune.data import EncodedRow, Prepared, prepare
from qtune.errors import DataError
from tests.data.building import chat, encoded, recipe, spans
from tests.tiny import tiny_tokenizer

REAL = Path(__file__).parents[3] / "shared" / "real"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="no ../shared/real")

MARKS = re.compile(
    r"<\|[^|<>]+\|>|<(?:start|end)_of_turn>|</?s>|<\uff5c[^\uff5c]+\uff5c>|\[/?INST\]|<turn\|>|<\|turn>"
    r"|\[\|[a-z]+\|\]"
)
TURNS = (("user", "Hi"), ("assistant", "Hello you"), ("user", "2+2?"), ("assistant", "It is four."))
SYSTEM = (("system", "Be brief."), *TURNS)
# Templates that have no place for a system text and say so.
NO_SYSTEM = {"gemma"}
# Templates that write earlier answers otherwise than the last one: a row for each answer.
UNROLLED = {"gemma4", "gemma4_unified", "qwen3", "qwen3_5"}
# Templates that put the system text before the last question: it moves as a conversation goes on.
MOVING = {"mistral_v2v3", "mistral_v3_tekken", "pixtral"}
ENDS = re.compile(
    r"</s>|<\|[\w]+\|>|<end_of_turn>|<turn\|>|<\uff5cend▁of▁sentence\uff5c>|\[\|endofturn\|\]"
)


def real_templates() -> list[Path]:
    return sorted((REAL / "chat_templates").glob("*.jinja"))


def with_template(path: Path) -> PreTrainedTokenizerFast:
    made = tiny_tokenizer()
    marks = set(MARKS.findall(path.read_text())) - {"<s>", "</s>"}
    made.add_special_tokens({"additional_special_tokens": sorted(marks)})
    made.chat_template = path.read_text()
    return made


@needs_real
@pytest.mark.parametrize("path", real_templates(), ids=lambda path: path.stem)
@pytest.mark.parametrize("turns", [TURNS[:2], TURNS, SYSTEM], ids=["one", "two", "system"])
def test_every_real_template_learns_the_answers_and_their_end(
    tmp_path: Path, path: Path, turns: tuple[tuple[str, str], ...]
) -> None:
    made = with_template(path)
    if turns is SYSTEM and path.stem in NO_SYSTEM:
        with pytest.raises(DataError, match="refuses this conversation: System role not supported"):
            encoded(tmp_path, [chat(*turns)], tokenizer=made)
        return
    prepared = encoded(tmp_path, [chat(*turns)], tokenizer=made, max_length=8192)
    rows = list(prepared.train)
    answers = [text for role, text in turns if role == "assistant"]
    found = [span for row in rows for span in spans(row, made)]
    assert len(found) == len(answers)
    for learnt, answer in zip(found, answers, strict=True):
        end = learnt.lstrip(" \n").removeprefix(answer)
        assert learnt.lstrip(" \n").startswith(answer)
        assert ENDS.fullmatch(end), learnt
    if (path.stem in UNROLLED and len(answers) > 1) or (path.stem in MOVING and turns is SYSTEM):
        assert len(rows) == len(answers) == prepared.report.train_sources[0].unrolled
        _assert_prompts(rows, turns, made)


def _assert_prompts(
    rows: list[EncodedRow], turns: tuple[tuple[str, str], ...], made: PreTrainedTokenizerFast
) -> None:
    """What stands before each answer begins with what the template asks for it with."""
    asked = [number for number, (role, _) in enumerate(turns) if role == "assistant"]
    for row, number in zip(rows, asked, strict=True):
        messages = chat(*turns[:number])["messages"]
        prompt = made.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        assert made.decode(row.prompt_ids).startswith(prompt)
        assert row.answer == turns[number][1]


@needs_real
def test_a_real_chat_tokenizer_with_its_own_template(tmp_path: Path) -> None:
    made = AutoTokenizer.from_pretrained(REAL / "tokenizers" / "minimind")
    row = encoded(tmp_path, [chat(*TURNS)], tokenizer=made).train[0]
    assert spans(row, made) == ["Hello you<|im_end|>", "It is four.<|im_end|>"]
    prompt = chat(*TURNS[:3])["messages"]
    text = made.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
    assert made.decode(row.prompt_ids) == text


@needs_real
def test_a_real_sentencepiece_tokenizer_gets_no_extra_space(tmp_path: Path) -> None:
    made = AutoTokenizer.from_pretrained(REAL / "model")
    rows = [{"prompt": "Once upon", "completion": " a time"}, {"prompt": "al", "completion": "so"}]
    first, second = encoded(tmp_path, rows, tokenizer=made).train
    for row, text in ((first, "Once upon a time"), (second, "also")):
        assert made.decode(row.input_ids) == made.decode(made(text)["input_ids"]) + "</s>"
        assert row.input_ids.count(made.bos_token_id) == 1
    assert first.prompt_ids == made("Once upon")["input_ids"]


# File: format, what is used of its rows, rows read, examples or pieces used at least.
FILES = {
    "banking77_test.csv": ("classification", "rows", 3080),
    "banking77_train.csv": ("classification", "rows", 10003),
    "e2e_test.txt": ("prompt-completion", "rows", 4693),
    "e2e_valid.txt": ("prompt-completion", "rows", 4672),
    "eval_arc_easy.jsonl": ("multiple-choice", "rows", 2376),
    "fastchat_dummy_conversation.json": ("sharegpt", "rows", 500),
    "glaive_toolcall_en_demo.json": ("sharegpt", "rows", 300),
    "gsm8k_test.jsonl": ("prompt-completion", "rows", 1319),
    "oasst_en_100_tree.jsonl": ("tree", "rows", 100),
    "rasbt_instruction_1100.json": ("alpaca", "rows", 1100),
    "rasbt_preference_1100.json": ("preference", "examples", 1094),
    "self_instruct_seed_tasks.jsonl": ("self-instruct", "rows", 175),
    "tinyshakespeare.txt": ("text", "pieces", 1),
    "tinystories_1000.json": ("text", "pieces", 1000),
}
REFUSED = {
    "mt_bench_question.jsonl": "turns holds what users say",
    "vicuna_questions.jsonl": "question_id says that these are questions.*classification.* or text",
}


def minimind() -> PreTrainedTokenizerFast:
    made: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(REAL / "tokenizers" / "minimind")
    return made


def made_of(name: str) -> Prepared:
    """A real file under the format that is found in it, by a tokenizer that knows tools."""
    path = REAL / "data" / name
    asked = recipe(path, max_length=16384, overlong="truncate_end", on_bad_row="skip")
    return prepare(asked, minimind())


@needs_real
@pytest.mark.parametrize("name", FILES)
def test_real_files_are_read_under_the_right_format(name: str) -> None:
    report = made_of(name).report.train_sources[0]
    assert (report.format, report.unit, report.read) == FILES[name]
    assert report.used >= report.read
    assert report.why.startswith("auto: ")
    assert report.garbled == (83 if name == "tinystories_1000.json" else 0)
    assert report.skipped == (6 if name == "rasbt_preference_1100.json" else 0)


@needs_real
def test_every_real_file_is_accounted_for() -> None:
    assert {path.name for path in (REAL / "data").iterdir()} == FILES.keys() | REFUSED.keys()


@needs_real
@pytest.mark.parametrize("name", REFUSED)
def test_questions_without_answers_are_refused_with_the_reason(name: str) -> None:
    with pytest.raises(DataError, match=REFUSED[name]) as caught:
        made_of(name)
    assert caught.value.faults[0].place == f"{name}:1"


@needs_real
def test_pairs_that_prefer_nothing_are_faults() -> None:
    with pytest.raises(DataError, match="is the same as rejected") as caught:
        prepare(recipe(REAL / "data" / "rasbt_preference_1100.json"), tiny_tokenizer())
    assert len(caught.value.faults) == 6


@needs_real
def test_both_answers_of_a_real_pair_stand_behind_one_prompt() -> None:
    chosen, rejected = made_of("rasbt_preference_1100.json").train[:2]
    assert chosen.place.endswith(".json:2 (chosen)")
    assert rejected.place.endswith(".json:2 (rejected)")
    assert chosen.prompt_ids == rejected.prompt_ids
    assert chosen.answer != rejected.answer


@needs_real
def test_a_real_row_with_a_tool_call() -> None:
    rows = made_of("glaive_toolcall_en_demo.json").train
    row = rows[0]
    made = minimind()
    text = made.decode(row.input_ids)
    assert '"name": "search_recipes"' in text.split("<|im_start|>user")[0]
    arguments = '{"ingredients": ["chicken", "bell peppers", "rice"]}'
    call = f'{{"name": "search_recipes", "arguments": {arguments}}}'
    first, second, third, fourth = spans(row, made)
    assert first == (
        "Of course! I can help you with that. Please tell me what ingredients you have.<|im_end|>"
    )
    assert second == f"<tool_call>\n{call}\n</tool_call><|im_end|>"
    assert third.startswith("I found two recipes")
    assert fourth.startswith("I'm sorry, but as an AI")


@needs_real
def test_the_e2e_rows_of_the_lora_paper() -> None:
    source = {
        "delimiter": "||",
        "column_names": ("meaning", "sentence"),
        "columns": {"completion": "sentence"},
        "prompt_template": "{meaning}\n",
    }
    path = REAL / "data" / "e2e_valid.txt"
    rows = prepare(recipe(path, source=source), tiny_tokenizer()).train
    lines = path.read_text().splitlines()
    assert len(rows) == len(lines) == 4672
    meaning, sentence = lines[100].split("||", 1)
    made = tiny_tokenizer()
    assert made.decode(rows[100].input_ids) == f"{meaning}\n{sentence}</s>"
    assert spans(rows[100], made) == [f"{sentence}</s>"]
