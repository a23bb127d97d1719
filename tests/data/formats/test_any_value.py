"""Whatever JSON stands anywhere in a row: examples, or a fault at its place; never a crash."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from qtune.data.formats import FORMATS
from qtune.data.formats.detect import detect
from qtune.data.row import Row
from qtune.errors import DataError
from qtune.recipe.inputs import SourceSection
from tests.data.formats.reading import PLACE, examples, settled

CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": {"a": 1}}}
CHAT = [
    {"role": "user", "content": "a", "name": "n"},
    {"role": "assistant", "content": None, "tool_calls": [CALL], "thinking": "t", "weight": 1},
    {"role": "tool", "content": "b", "tool_call_id": "c"},
    {"role": "assistant", "content": [{"type": "text", "text": "d"}], "train": True},
]
REPLY = {"role": "assistant", "text": "b", "replies": [], "rank": 0, "deleted": False}
LABELS = {"spam": {"value": 0.1, "count": 3}}
GOOD: dict[str, dict[str, Any]] = {
    "alpaca": {"instruction": "a", "input": "b", "output": "c"},
    "messages": {"messages": CHAT, "tools": [{"name": "f", "parameters": {}}], "system": "s"},
    "sharegpt": {
        "conversations": [
            {"from": "human", "value": "a"},
            {"from": "function_call", "value": '{"name": "f", "arguments": "{}"}'},
            {"from": "observation", "value": "b"},
            {"from": "gpt", "value": "c"},
        ],
        "tools": "[]",
    },
    "tree": {"prompt": {"role": "prompter", "text": "a", "replies": [REPLY], "labels": LABELS}},
    "prompt-completion": {"prompt": "a", "completion": "b"},
    "self-instruct": {"instruction": "a", "instances": [{"input": "b", "output": "c"}]},
    "classification": {"text": "a", "label": "b"},
    "multiple-choice": {
        "query": "a",
        "choices": {"text": ["b", "c"], "label": ["1", "2"]},
        "gold": 1,
    },
    "preference": {"prompt": CHAT[:1], "chosen": CHAT[3:], "rejected": CHAT[1:]},
    "unpaired": {"prompt": CHAT[:1], "completion": CHAT[3:], "label": True},
    "text": {"text": "a"},
    "tokens": {"input_ids": [1, 2], "labels": [-100, 2], "mask": [0, 1]},
}
JUNK: tuple[Any, ...] = (
    *(None, True, 3, -1, 1.5, "", " ", "x", "\ud800", "[", '{"a": 1}', "[3]", "Human: a"),
    *([], {}, [None], ["x"], [[]], [{}], {"a": 1}, {"role": "user"}, [{"from": "gpt"}]),
    {"text": [], "label": [{}]},
)


def spoilt(value: Any) -> Iterator[Any]:
    """The value with each of its parts replaced by everything else, or taken out."""
    yield from JUNK
    keys = list(value) if isinstance(value, dict) else range(len(value) if is_list(value) else 0)
    for key in keys:
        for part in spoilt(value[key]):
            yield replaced(value, key, part)
        yield without(value, key)


def is_list(value: Any) -> bool:
    return isinstance(value, list)


def replaced(value: Any, key: Any, part: Any) -> Any:
    changed = value.copy()
    changed[key] = part
    return changed


def without(value: Any, key: Any) -> Any:
    changed = value.copy()
    del changed[key]
    return changed


@pytest.mark.parametrize("name", GOOD)
def test_any_value_anywhere(name: str) -> None:
    good = GOOD[name]
    assert examples(name, good)
    refused = 0
    places = {PLACE}
    for row in spoilt(good):
        if not isinstance(row, dict):
            continue
        settled(name, row)  # as the first row of a source
        for first in (row, good):
            try:
                found = examples(name, row, first=first)
            except DataError as error:
                places.update(fault.place for fault in error.faults)
                refused += 1
                continue
            assert found
            for example in found:
                assert example.ids or any(turn.train for turn in example.turns)
                for turn in example.turns:
                    (turn.text + turn.thinking + turn.name + turn.role).encode()
    assert refused > 10
    assert places == {PLACE}


@pytest.mark.parametrize("name", GOOD)
def test_detection_finds_the_format_or_says_why_not(name: str) -> None:
    source = SourceSection(path="f.jsonl")
    assert detect(Row("f.jsonl", 1, GOOD[name]), source).format.name == name
    for row in spoilt(GOOD[name]):
        if isinstance(row, dict):
            with suppress(DataError):
                assert detect(Row("f.jsonl", 1, row), source).why.startswith("auto: ")


def test_every_format_is_tried() -> None:
    assert set(FORMATS) == GOOD.keys()
