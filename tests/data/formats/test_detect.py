"""Columns to format, with the reason; what fits none or two is refused."""

from __future__ import annotations

from typing import Any

import pytest

from qtune.data.formats.detect import detect
from qtune.data.row import Row
from qtune.errors import DataError, UsageError
from qtune.recipe.sections import SourceSection

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
    ],
)
def test_columns_tell_the_format(
    values: dict[str, Any], name: str, columns: dict[str, str] | None
) -> None:
    got, mapped, why = found(values)
    assert got == name
    assert columns is None or mapped == columns
    assert why.startswith("auto: ")
    assert all(column in why for column in mapped.values())


def test_a_mapping_makes_a_format_known() -> None:
    columns = {"prompt": "q", "completion": "a"}
    assert found({"q": "x", "a": "y"}, columns=columns)[:2] == ("prompt-completion", columns)


@pytest.mark.parametrize(
    ("values", "readings"),
    [
        ({"messages": SAID, "prompt": "a", "completion": "b"}, ["messages", "prompt-completion"]),
        ({"text": "a", "category": "b"}, ["text", "prompt-completion"]),
        ({"prompt": "a", "chosen": "b", "rejected": "c", "completion": "d"}, ["preference pair"]),
    ],
)
def test_two_readings_are_refused_by_name(values: dict[str, Any], readings: list[str]) -> None:
    with pytest.raises(DataError, match="can be read as") as caught:
        found(values)
    assert all(reading in str(caught.value) for reading in readings)
    assert caught.value.faults[0].place == "f.jsonl:1"


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
        ({"prompt_template": "{a"}, "prompt_template"),
        ({"prompt_template": "no place"}, "names no"),
        ({"prompt_template": "{a.b!r}"}, "plain {column} places only"),
        ({"prompt_template": "{a}", "columns": {"prompt": "a"}}, "no effect beside"),
        ({"columns": {"promt": "a"}}, "reads nothing from 'promt'"),
    ],
)
def test_recipe_faults(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        found({"a": "x", "instruction": "i", "output": "o", "completion": "y"}, **keys)
    assert message in str(caught.value)


def test_a_template_with_an_unknown_column() -> None:
    with pytest.raises(DataError, match=r"expected meening for .*is 'meaning' meant as 'meening'"):
        found({"meaning": "x", "completion": "y"}, prompt_template="{meening}")
