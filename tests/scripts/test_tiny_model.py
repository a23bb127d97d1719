"""The quickstart's model and data are what the generator makes, and the score is honest."""

from __future__ import annotations

import json
import sys
from itertools import islice
from pathlib import Path
from random import Random

import pytest

ROOT = Path(__file__).resolve().parents[2]
QUICKSTART = ROOT / "recipes" / "quickstart"
sys.path.insert(0, str(ROOT / "scripts" / "tiny_model"))

import build  # noqa: E402
import cafe_orders  # noqa: E402
import pretraining_text  # noqa: E402
import tiny_tokenizer  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402
from transformers import PreTrainedTokenizerFast as Tokenizer  # noqa: E402

sys.path.pop(0)  # the names in there are too plain to leave them to other tests

SAMPLE = 4_000


def shipped_rows(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (QUICKSTART / name).read_text("utf-8").splitlines()]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return AutoTokenizer.from_pretrained(QUICKSTART / "model")


@pytest.fixture(scope="module")
def pretraining_sample() -> str:
    texts: list[str] = []
    for document in islice(pretraining_text.documents(build.SEED), SAMPLE):
        whole = isinstance(document, str)
        texts += [document] if whole else [turn["content"] for turn in document]
    return "\n".join(texts)


def test_the_shipped_data_is_what_the_seed_gives() -> None:
    for name, text in build.data_files(build.SEED).items():
        assert (QUICKSTART / name).read_text("utf-8") == text


def test_the_same_seed_gives_the_same_pretraining_text_and_another_seed_does_not() -> None:
    first, again, other = (
        list(islice(pretraining_text.documents(seed), 200)) for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_test_rows_are_in_neither_the_training_rows_nor_the_pretraining_text(
    pretraining_sample: str,
) -> None:
    train, test = shipped_rows("train.jsonl"), shipped_rows("test.jsonl")
    assert len({row["prompt"] for row in train}) == len(train) >= 1500
    assert len({row["prompt"] for row in test}) == len(test) == 200
    trained = {row[key] for row in train for key in ("prompt", "completion")}
    for row in test:
        assert row["prompt"] not in trained
        assert row["completion"] not in trained
        assert row["prompt"].strip() not in pretraining_sample


def test_an_order_is_reserved_whatever_its_sequence_and_its_place() -> None:
    order = cafe_orders.draw_order(Random(3), reserved=True)
    turned = cafe_orders.Order(order.name, not order.to_go, order.items[::-1])
    assert cafe_orders.held_out(turned)
    assert not cafe_orders.held_out(cafe_orders.draw_order(Random(3), reserved=False))


@pytest.mark.parametrize("mark", ['{"', '"name":', '"items"', "to_go"])
def test_the_format_of_the_answers_never_occurs_in_pretraining(
    mark: str, pretraining_sample: str
) -> None:
    assert mark not in pretraining_sample


def test_a_record_says_who_what_and_where() -> None:
    items = (cafe_orders.Item(2, "large oat latte"), cafe_orders.Item(1, "apple scone"))
    order = cafe_orders.Order("Maria", True, items)
    assert cafe_orders.spoken_items(order) == "two large oat lattes and an apple scone"
    assert json.loads(cafe_orders.record(order)) == {
        "name": "Maria",
        "items": ["2 large oat latte", "1 apple scone"],
        "to_go": True,
    }


def test_the_shipped_folder_is_small_and_loads() -> None:
    files = [path for path in (QUICKSTART / "model").iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 4_000_000
    model = AutoModelForCausalLM.from_pretrained(QUICKSTART / "model")
    assert model.config.hidden_size % 64 == 0
    assert model.config.intermediate_size % 64 == 0
    assert model.config.max_position_embeddings >= 512


def test_the_shipped_tokenizer_is_what_the_seed_gives(tokenizer: Tokenizer) -> None:
    assert tiny_tokenizer.train_tokenizer(seed=build.SEED).get_vocab() == tokenizer.get_vocab()


@pytest.mark.parametrize("text", ["two lattes", " \n\t x ", "Ünïcödé — 日本語 🙂\x00", "{'a': 1}"])
def test_the_tokenizer_gives_every_text_back(text: str, tokenizer: Tokenizer) -> None:
    ids = tokenizer(text)["input_ids"]
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_the_special_tokens_are_distinct(tokenizer: Tokenizer) -> None:
    ids = tokenizer.convert_tokens_to_ids(list(tiny_tokenizer.SPECIAL_TOKENS))
    assert len({*ids}) == len(tiny_tokenizer.SPECIAL_TOKENS)
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)


def test_the_chat_template_marks_exactly_what_the_assistant_says(tokenizer: Tokenizer) -> None:
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Who am I?"},
        {"role": "assistant", "content": "You are Ada."},
    ]
    encoded = tokenizer.apply_chat_template(
        turns, return_dict=True, return_assistant_tokens_mask=True
    )
    pairs = zip(encoded["input_ids"], encoded["assistant_masks"], strict=True)
    assert tokenizer.decode([token for token, mark in pairs if mark]) == "You are Ada.<|eos|>"
    prompt = tokenizer.apply_chat_template(turns[:2], add_generation_prompt=True, tokenize=False)
    whole = tokenizer.apply_chat_template(turns, tokenize=False)
    assert whole == f"{prompt}You are Ada.<|eos|>"
