"""Prompt and completion, documents and headed instructions: exact texts, exact masks."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, processors
from transformers import PreTrainedTokenizerFast

from qtune.errors import DataError, ModelError
from tests.data.building import encoded, spans
from tests.tiny import tiny_tokenizer


def with_bos() -> PreTrainedTokenizerFast:
    """The tiny tokenizer, which puts <s> in front by itself."""
    made = tiny_tokenizer()
    made.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    return made


def with_dummy_prefix() -> PreTrainedTokenizerFast:
    """A tokenizer that begins every text with a space, as SentencePiece does for Llama 2."""
    words = ["<s>", "</s>", "▁", "\n", *"abcdefgh", "▁a", "▁b", "▁c", "ab"]
    merges = [("▁", "a"), ("▁", "b"), ("▁", "c"), ("a", "b")]
    made = Tokenizer(models.BPE(vocab={w: n for n, w in enumerate(words)}, merges=merges))
    made.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse()])
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>")


PAIR = {"prompt": "1 + 2 =", "completion": " 3"}


def test_prompt_completion_and_end(tmp_path: Path) -> None:
    made = tiny_tokenizer()
    row = encoded(tmp_path, [PAIR]).train[0]
    prompt = made(PAIR["prompt"])["input_ids"]
    answer = made(PAIR["completion"])["input_ids"]
    assert row.input_ids == [*prompt, *answer, made.eos_token_id]
    assert row.labels == [-100] * len(prompt) + [*answer, made.eos_token_id]
    assert row.prompt_ids == prompt
    assert row.answer == " 3"
    assert row.place == "train.jsonl:1"


def test_one_begin_of_sequence_when_the_tokenizer_adds_one(tmp_path: Path) -> None:
    made = with_bos()
    row = encoded(tmp_path, [PAIR], tokenizer=made).train[0]
    assert row.prompt_ids == made(PAIR["prompt"])["input_ids"]
    assert row.input_ids.count(made.bos_token_id) == 1
    assert row.input_ids[0] == made.bos_token_id
    assert spans(row, made) == [" 3</s>"]


def test_chats_get_one_begin_of_sequence_whether_the_template_writes_it_or_not(
    tmp_path: Path,
) -> None:
    value = {"instruction": "a", "output": "b"}
    for template in ("{{ bos_token }}", ""):
        made = with_bos()
        made.chat_template = template + (
            "{% for m in messages %}{{ m.role[0] }}:{{ m.content }}{% endfor %}"
            "{% if add_generation_prompt %}a:{% endif %}"
        )
        row = encoded(tmp_path, [value], tokenizer=made).train[0]
        assert made.decode(row.input_ids) == "<s>u:aa:b</s>"
        assert row.prompt_ids == made("u:aa:")["input_ids"]


@pytest.mark.parametrize("row", [{"text": "<s>[INST] a"}, {**PAIR, "prompt": "<s>x"}])
def test_a_text_that_brings_its_own_beginning_is_refused(
    tmp_path: Path, row: dict[str, str]
) -> None:
    with pytest.raises(DataError, match=r"^train\.jsonl:1: the text begins with <s>, which"):
        encoded(tmp_path, [row], tokenizer=with_bos())


def test_typed_special_tokens_stay_text(tmp_path: Path) -> None:
    row = {"prompt": "a</s>b", "completion": "<pad>"}
    prepared = encoded(tmp_path, [row])
    made = tiny_tokenizer()
    assert prepared.train[0].input_ids.count(made.eos_token_id) == 1
    assert made.decode(prepared.train[0].input_ids) == "a</s>b<pad></s>"
    assert any("1 rows spell out special tokens" in line for line in prepared.report.lines())


def test_no_space_is_slipped_between_prompt_and_completion(tmp_path: Path) -> None:
    made = with_dummy_prefix()
    rows = [{"prompt": "ab", "completion": "ab c"}, {"prompt": "ab", "completion": " ab"}]
    first, second = encoded(tmp_path, rows, tokenizer=made).train
    tokens = made.convert_ids_to_tokens
    assert tokens(first.input_ids) == ["▁a", "b", "ab", "▁c", "</s>"]
    assert tokens(second.input_ids) == ["▁a", "b", "▁a", "b", "</s>"]
    assert first.prompt_ids == made("ab")["input_ids"]


def test_instructions_without_a_template_stand_under_headings(tmp_path: Path) -> None:
    made = tiny_tokenizer()
    made.chat_template = None
    rows = [
        {"instruction": "Add.", "input": "1 2", "output": "3"},
        {"instruction": "Hi", "output": "o"},
    ]
    prepared = encoded(tmp_path, rows, tokenizer=made)
    texts = [made.decode(row.input_ids) for row in prepared.train]
    assert texts == [
        "### Instruction:\nAdd.\n\n### Input:\n1 2\n\n### Response:\n3</s>",
        "### Instruction:\nHi\n\n### Response:\no</s>",
    ]
    assert spans(prepared.train[0], made) == ["3</s>"]
    assert any("### Instruction" in line for line in prepared.report.lines()[:2])


def test_instructions_with_a_template_are_one_exchange(tmp_path: Path) -> None:
    made = tiny_tokenizer()
    row = encoded(tmp_path, [{"instruction": "Add.", "input": "1 2", "output": "3"}]).train[0]
    assert made.decode(row.input_ids) == "<s><|user|>\nAdd.\n\n1 2<|assistant|>\n3</s>"


@pytest.mark.parametrize("made", [tiny_tokenizer(), with_bos()], ids=["no bos", "bos"])
@pytest.mark.parametrize("max_length", [7, 8, 32])
def test_a_document_is_cut_and_every_token_learnt_once(
    tmp_path: Path, made: PreTrainedTokenizerFast, max_length: int
) -> None:
    text = "abcdefghijklmnopqrstu"
    rows = encoded(tmp_path, [{"text": text}], tokenizer=made, max_length=max_length).train
    learnt = [label for row in rows for label in row.labels if label != -100]
    whole = [*made(text)["input_ids"], made.eos_token_id]
    assert learnt == whole[1:]
    assert all(len(row.input_ids) <= max_length for row in rows)
    assert [row.input_ids.count(made.eos_token_id) for row in rows] == [0] * (len(rows) - 1) + [1]
    assert all(row.prompt_ids is None for row in rows)
    if made("a")["input_ids"][0] == made.bos_token_id:
        assert all(row.input_ids[0] == made.bos_token_id for row in rows)
        assert all(row.input_ids.count(made.bos_token_id) == 1 for row in rows)


def test_a_tokenizer_without_an_end_is_refused(tmp_path: Path) -> None:
    made = tiny_tokenizer()
    made.eos_token = None
    with pytest.raises(ModelError, match="no end-of-sequence token"):
        encoded(tmp_path, [PAIR], tokenizer=made)
