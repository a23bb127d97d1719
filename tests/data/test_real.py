"""Real files and real chat templates; skipped where they are not at hand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from qtune.data import EncodedRow, prepare
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


FILES = {
    "rasbt_instruction_1100.json": ("alpaca", 1100),
    "gsm8k_test.jsonl": ("prompt-completion", 1319),
    "fastchat_dummy_conversation.json": ("sharegpt", 500),
    "tinystories_1000.json": ("text", 1000),
    "tinyshakespeare.txt": ("text", 1),
}


@needs_real
@pytest.mark.parametrize("name", FILES)
def test_real_files_are_read_under_the_right_format(name: str) -> None:
    asked = recipe(REAL / "data" / name, max_length=4096, overlong="truncate_end")
    report = prepare(asked, tiny_tokenizer()).report.train_sources[0]
    assert (report.format, report.read) == FILES[name]
    assert report.used >= report.read


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


@needs_real
@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("banking77_train.csv", "banking77_train.csv:2"),
        ("rasbt_preference_1100.json", "rasbt_preference_1100.json:2"),
        ("self_instruct_seed_tasks.jsonl", "self_instruct_seed_tasks.jsonl:1"),
        ("glaive_toolcall_en_demo.json", "glaive_toolcall_en_demo.json:2"),
        ("eval_arc_easy.jsonl", "eval_arc_easy.jsonl:1"),
    ],
)
def test_real_files_that_no_format_reads_are_refused_by_line(name: str, place: str) -> None:
    with pytest.raises(DataError) as caught:
        prepare(recipe(REAL / "data" / name), tiny_tokenizer())
    assert caught.value.faults[0].place == place
