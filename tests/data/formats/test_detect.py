"""Columns to format, with the reason; what fits none or two is refused."""

from __future__ import annotations

from typing import Any

import pytest

from qtune.data.formats.detect import detect
from qtune.data.row import Row
from qtune.errors import DataError, UsageError
from qtune.recipe.inputs import SourceSection

SAID = [{"role": "user", "content": "x"}]
SHARED = [{"from": "human", "value": "x"}]


def found(values: dict[str, Any], **keys: Any) -> tuple[str, dict[str, str], str]:
    detected = detect(Row("f.jsonl", 1, values), SourceSection(path="f.jsonl", **keys))
    return detected.format.name, dict(detected.columns), detected.why


@pytest.mark.parametrize(
    ("values", "name", "columns"),
    [
        ({"messages": SAID, "id": 1}, "messages", {"messages": "messages"}),
        ({"conversations": SAID}, "messages", {"messages": "conversations"}),
        ({"conversations": SHARED}, "sharegpt", {"conversations": "conversations"}),
        ({"conversation": SHARED}, "sharegpt", {"conversations": "conversation"}),
        ({"messages": SAID, "prompt": "x", "text": "y"}, "messages", {"messages": "messages"}),
        ({"messages": []}, "messages", {"messages": "messages"}),
        ({"instruction": "a", "output": "b"}, "alpaca", None),
        ({"instruction": "a", "input": "", "output": "b", "text": "c"}, "alpaca", None),
        ({"prompt": "a", "completion": "b"}, "prompt-completion", None),
        ({"question": "a", "answer": "b"}, "prompt-completion", None),
        ({"text": "a", "url": "b"}, "text", {"text": "text"}),
        ({"text": "a", "category": "b"}, "classification", {"text": "text", "label": "category"}),
        ({"sentence": "a", "label": 1}, "classification", {"text": "sentence", "label": "label"}),
        (
            {"text": "a", "label": 1, "label_text": "good"},
            "classification",
            {"text": "text", "label": "label_text"},
        ),
        ({"text": "a", "label": None}, "classification", None),
        ({"input_ids": [1, 2], "attention_mask": [1, 1], "text": "a"}, "tokens", None),
        ({"input_ids": [1, 2], "labels": [1, 2]}, "tokens", None),
        (
            {"prompt": "a", "chosen": "b", "rejected": "c", "completion": "d"},
            "preference",
            {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"},
        ),
        ({"chosen": SAID, "rejected": SAID}, "preference", None),
        ({"conversations": SHARED, "chosen": {}, "rejected": {}}, "preference", None),
        ({"prompt": "a", "completion": "b", "label": True}, "unpaired", None),
        ({"messages": SAID, "label": False}, "unpaired", None),
        ({"conversations": SHARED, "kto_tag": True}, "unpaired", {"conversations", "kto_tag"}),
        ({"prompt": {"text": "a", "replies": []}, "tree_state": "x"}, "tree", None),
        ({"instruction": "a", "instances": [], "id": "x"}, "self-instruct", None),
        ({"query": "a", "choices": ["b", "c"], "gold": 0}, "multiple-choice", None),
        ({"question": "a", "choices": ["b", "c"], "answer": 1}, "multiple-choice", None),
        (
            {"conversations": SHARED, "tools": "[]"},
            "sharegpt",
            {"conversations": "conversations", "tools": "tools"},
        ),
        (
            {"instruction": "a", "context": "", "response": "b", "category": "c"},
            "alpaca",
            {"instruction": "instruction", "input": "context", "output": "response"},
        ),
    ],
)
def test_columns_tell_the_format(
    values: dict[str, Any], name: str, columns: dict[str, str] | set[str] | None
) -> None:
    got, mapped, why = found(values)
    assert got == name
    assert columns is None or columns in (mapped, set(mapped.values()))
    assert why.startswith("auto: ")
    assert all(column in why for column in mapped.values())


def test_a_mapping_makes_a_format_known() -> None:
    columns = {"prompt": "q", "completion": "a"}
    assert found({"q": "x", "a": "y"}, columns=columns)[:2] == ("prompt-completion", columns)


@pytest.mark.parametrize(
    ("values", "readings"),
    [
        ({"messages": SAID, "prompt": "a", "completion": "b"}, ["messages", "prompt-completion"]),
        ({"question": "a", "answer": "b", "response": "c"}, ["question, answer", "question, resp"]),
        (
            {"instruction": "a", "output": "b", "prompt": "c", "completion": "d"},
            ["alpaca (found the columns instruction, output)", "prompt-completion"],
        ),
        ({"input_ids": [1], "chosen": "b", "rejected": "c"}, ["tokens", "preference"]),
    ],
)
def test_two_readings_are_refused_by_name(values: dict[str, Any], readings: list[str]) -> None:
    with pytest.raises(DataError, match="can be read as") as caught:
        found(values)
    assert all(reading in str(caught.value) for reading in readings)
    assert caught.value.faults[0].place == "f.jsonl:1"


def test_a_column_that_is_known_is_meant_as_it_is() -> None:
    with pytest.raises(DataError) as caught:
        found({"promt": "a", "completion": "b"})
    assert caught.value.faults[0].hint == "is 'promt' meant as 'prompt'?"


def test_unknown_columns_are_set_against_known_ones() -> None:
    with pytest.raises(DataError) as caught:
        found({"promt": "a", "complet": "b"})
    text = str(caught.value)
    assert text.startswith("f.jsonl:1: found the columns promt, complet; expected one of:")
    assert "is 'promt' meant as 'prompt'?" in text


def test_a_named_format_lists_what_is_missing() -> None:
    with pytest.raises(DataError) as caught:
        found({"instruction": "a", "outputs": "b"}, format="alpaca")
    assert str(caught.value) == (
        "f.jsonl:1: found the columns instruction, outputs; expected output for alpaca "
        "(is 'outputs' meant as 'output'?)"
    )


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"format": "alpaca", "columns": {"instrution": "a"}}, "no field 'instrution'"),
        ({"format": "alpaca", "prompt_template": "{a}"}, "prompt_template has no effect"),
        ({"format": "alpaca", "labels": ("a", "b")}, "labels has no effect on alpaca rows"),
        ({"prompt_template": "{a"}, "prompt_template"),
        ({"prompt_template": "no place"}, "names no"),
        ({"prompt_template": "{a.b!r}"}, "plain {column} places only"),
        ({"prompt_template": "{a}", "columns": {"prompt": "a"}}, "no effect beside"),
        ({"columns": {"promt": "a"}}, "a field 'promt' (did you mean prompt?)"),
        ({"columns": {"outptu": "output"}}, "no format has a field 'outptu'"),
        ({"columns": {"text": "output"}}, "alpaca, as detected, reads nothing from 'text'"),
        ({"columns": {"query": "instruction"}}, "reads nothing from 'query'"),
    ],
)
def test_recipe_faults(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        found({"a": "x", "instruction": "i", "output": "o", "completion": "y"}, **keys)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("columns", "prompt"),
    [
        ({}, "question"),
        ({"prompt": "question", "answer": "answer"}, "question"),
        ({"completion": "answer"}, "question"),
        ({"question": "answer", "answer": "question"}, "answer"),
    ],
)
def test_a_mapped_field_acts_under_each_of_its_names(columns: dict[str, str], prompt: str) -> None:
    assert found({"question": "x", "answer": "y"}, columns=columns)[1]["prompt"] == prompt


@pytest.mark.parametrize(
    "columns", [{"prompt": "answer"}, {"source": "answer"}, {"text": "answer"}]
)
def test_a_mapped_field_is_not_read_as_another(columns: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="reads nothing from"):
        found({"question": "x", "answer": "y"}, columns=columns)


def test_a_template_with_an_unknown_column() -> None:
    with pytest.raises(DataError, match=r"expected meening for .*is 'meaning' meant as 'meening'"):
        found({"meaning": "x", "completion": "y"}, prompt_template="{meening}")


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"question_id": 1, "category": "x", "turns": ["a", "b"]}, "no column holds what is answe"),
        ({"question_id": 1, "category": "x", "text": "a"}, "question_id says that these are quest"),
    ],
)
def test_questions_without_answers_are_refused_with_the_reason(
    values: dict[str, Any], reason: str
) -> None:
    with pytest.raises(DataError, match=reason) as caught:
        found(values)
    assert ("read as classification" in str(caught.value)) == ("text" in values)
    if "text" in values:
        assert found(values, format="text")[0] == "text"


def test_labels_make_a_classification() -> None:
    values = {"tweet": "a", "feeling": 1, "text": "b", "label": 2}
    names = ("x", "y", "z")
    assert found(values, labels=names)[1] == {"text": "text", "label": "label"}
    mapped = {"text": "tweet", "label": "feeling"}
    name, columns, why = found(values, labels=names, columns=mapped)
    assert (name, columns, why) == ("classification", mapped, "auto: there are labels")


@pytest.mark.parametrize("template", ["{text} ->", "{n}: {text}", "{n}"])
def test_a_template_over_texts_and_labels_is_a_classification(template: str) -> None:
    values = {"text": "a", "label": "b", "n": 3}
    assert found(values, prompt_template=template)[0] == "classification"
    assert found({**values, "completion": "c"}, prompt_template=template)[0] == "prompt-completion"
    assert found(values, prompt_template=template, labels=("b",))[0] == "classification"
    columns = {"completion": "label"}
    assert found(values, prompt_template=template, columns=columns)[0] == "prompt-completion"


@pytest.mark.parametrize(("path", "hinted"), [("f.csv", True), ("f.tsv", True), ("f.jsonl", False)])
def test_a_table_whose_first_line_is_a_row_is_told_what_to_do(path: str, hinted: bool) -> None:
    values = {"3": "4", "Wall St. Bears claw back into the black": "Oil"}
    with pytest.raises(DataError) as caught:
        detect(Row(path, 2, values), SourceSection(path=path))
    assert ("name the columns with column_names" in str(caught.value)) == hinted
