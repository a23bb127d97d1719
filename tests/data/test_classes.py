"""Rows for the head of a classification: labels found and checked, texts as they should be."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from qtune import data
from qtune.data.batch import collate_labelled
from qtune.data.classes import class_names
from qtune.errors import DataError, UsageError
from qtune.recipe.sections import Recipe
from tests.tiny import tiny_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

WORDS = ["good", "bad", "film", "a", "the", "end"]


def bert_tokenizer() -> PreTrainedTokenizerFast:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    tokenizer = Tokenizer(
        models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def asked(folder: Path, rows: list[dict[str, Any]], **keys: Any) -> Recipe:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    labels = keys.pop("labels", ())
    source = {"path": str(path), **keys.pop("source", {})}
    settings = {
        "model": {"name_or_path": "x", "task": "classification", "labels": labels},
        "data": {"train": [source], "max_length": 32, "cache_dir": str(folder / "cache"), **keys},
    }
    return Recipe.model_validate(settings)


def encoded(recipe: Recipe, tokenizer: Any) -> data.Rows:
    named = recipe.model.model_copy(update={"labels": class_names(recipe)})
    return data.prepare(recipe.model_copy(update={"model": named}), tokenizer).train


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["pos", "neg", "pos"], ("neg", "pos")),
        ([10, 2, 1], ("1", "2", "10")),
        (["10", "2"], ("2", "10")),
        ([True, False], ("false", "true")),
    ],
)
def test_the_rows_tell_the_labels(tmp_path: Path, values: list[Any], expected: Any) -> None:
    recipe = asked(tmp_path, [{"text": "a", "label": value} for value in values])
    assert class_names(recipe) == expected
    given = [row.answer for row in encoded(recipe, bert_tokenizer())]
    assert given == [
        str(value).lower() if isinstance(value, bool) else str(value) for value in values
    ]


def test_numbers_mean_the_names_that_are_listed(tmp_path: Path) -> None:
    rows = [
        {"text": "a", "label": 1},
        {"text": "good", "label": "0"},
        {"text": "a", "label": "pos"},
    ]
    for keys in ({"labels": ["neg", "pos"]}, {"source": {"labels": ["neg", "pos"]}}):
        found = encoded(asked(tmp_path, rows, **keys), bert_tokenizer())
        assert [row.answer for row in found] == ["pos", "neg", "pos"]
        assert [row.input_ids[-1] for row in found] == [1, 0, 1]
        assert [sum(label != -100 for label in row.labels) for row in found] == [1, 1, 1]


def test_an_unknown_label_is_named_with_the_nearest(tmp_path: Path) -> None:
    recipe = asked(tmp_path, [{"text": "a", "label": "positve"}], labels=["negative", "positive"])
    with pytest.raises(
        DataError, match=r"rows.jsonl:1.*'positve' is none of the 2 labels"
    ) as error:
        data.prepare(recipe, bert_tokenizer())
    assert "positive" in str(error.value.faults[0].hint)


def test_one_label_is_none_and_thousands_are_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="1 label, two are needed"):
        class_names(asked(tmp_path, [{"text": "a", "label": "x"}]))
    many = [{"text": "a", "label": f"n{number}"} for number in range(1001)]
    with pytest.raises(DataError, match="1,001 labels"):
        class_names(asked(tmp_path, many))


def test_another_format_has_no_label(tmp_path: Path) -> None:
    recipe = asked(tmp_path, [{"text": "a", "label": "x"}], source={"format": "alpaca"})
    with pytest.raises(UsageError, match="alpaca rows have no label"):
        class_names(recipe)


def test_texts_are_written_as_the_tokenizer_writes_them(tmp_path: Path) -> None:
    tokenizer = bert_tokenizer()
    rows = [
        {"sentence1": "the film", "sentence2": "good end", "label": "yes"},
        {"sentence1": "a [SEP] bad", "sentence2": "film", "label": "no"},
    ]
    found = encoded(asked(tmp_path, rows), tokenizer)
    pair = tokenizer("the film", "good end")
    assert found[0].input_ids[:-1] == pair["input_ids"]
    batch = collate_labelled([found[0], found[1]], pad_id=0)
    assert batch.inputs()["token_type_ids"][0, :7].tolist() == pair["token_type_ids"]
    assert batch.labels.tolist() == [1, 0]
    assert batch.supervised == 2
    # what spells a special token out is text
    assert found[1].input_ids.count(3) == 2
    assert batch.attention_mask is not None
    assert (
        batch.tokens == int(batch.attention_mask.sum()) == sum(len(r.input_ids) - 1 for r in found)
    )


@pytest.mark.parametrize(
    ("overlong", "expected"),
    [
        ("truncate_end", [2, 8, 7, 3]),
        ("truncate_prompt", [2, 5, 6, 3]),
        ("drop", None),
        ("error", None),
    ],
)
def test_long_texts_are_cut_and_keep_marks_and_label(
    tmp_path: Path, overlong: str, expected: list[int] | None
) -> None:
    rows = [{"text": "a film good bad", "label": "y"}, {"text": "a", "label": "n"}]
    recipe = asked(tmp_path, rows, max_length=4, overlong=overlong)
    if overlong == "error":
        with pytest.raises(DataError, match="6 tokens, max_length is 4"):
            encoded(recipe, bert_tokenizer())
        return
    found = encoded(recipe, bert_tokenizer())
    assert len(found) == (1 if expected is None else 2)
    if expected is not None:
        assert found[0].input_ids == [*expected, 1]


def test_chats_and_templates(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    chat = [{"role": "user", "content": "hi"}]
    rows = [{"messages": chat, "category": "x"}, {"messages": chat, "category": "y"}]
    found = encoded(asked(tmp_path, rows), tokenizer)
    written = tokenizer.apply_chat_template(chat, tokenize=False)
    assert tokenizer.decode(found[0].input_ids[:-1]) == written
    rows = [{"title": "a", "body": "b", "label": n} for n in ("x", "y")]
    recipe = asked(tmp_path, rows, source={"prompt_template": "{title}: {body}"})
    assert tokenizer.decode(encoded(recipe, tokenizer)[0].input_ids[:-1]) == "a: b"
