"""Rows of ids: read, checked, and taken into the tensors as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from qtune.errors import DataError
from tests.data.building import encoded, messages_of
from tests.data.formats.reading import only, refuse
from tests.tiny import tiny_tokenizer

IDS = [5, 6, 7]


@pytest.mark.parametrize(
    ("keys", "learnt"),
    [
        ({}, (True, True, True)),
        ({"labels": [-100, 6, 7]}, (False, True, True)),
        ({"mask": [0, 1, 0]}, (False, True, False)),
        ({"completion_mask": [0, 1, 1]}, (False, True, True)),
        ({"assistant_masks": [0, 1, 1], "attention_mask": [1, 1, 1]}, (False, True, True)),
        ({"labels": None, "mask": None}, (True, True, True)),
    ],
)
def test_ids_and_what_is_learnt(keys: dict[str, Any], learnt: tuple[bool, ...]) -> None:
    example = only("tokens", {"input_ids": IDS, **keys})
    assert (example.ids, example.learnt) == ((5, 6, 7), learnt)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({}, "input_ids: missing"),
        ({"input_ids": None}, "input_ids: is null, a list of integers is needed"),
        ({"input_ids": "5 6"}, "input_ids: is text, a list of integers is needed"),
        ({"input_ids": []}, "input_ids: is empty"),
        ({"input_ids": [5, "6"]}, "input_ids: number 2 is text, an integer is needed"),
        ({"input_ids": [5, 6.0]}, "input_ids: number 2 is 6.0, an integer is needed"),
        ({"input_ids": [5, True]}, "input_ids: number 2 is a boolean, an integer is needed"),
        ({"input_ids": [5, None]}, "input_ids: number 2 is null, an integer is needed"),
        ({"input_ids": [5, -1]}, "input_ids: number 2 is -1, 0 or more is needed"),
        ({"input_ids": IDS, "labels": [5, 6]}, "labels: has 2 numbers, input_ids has 3"),
        (
            {"input_ids": IDS, "labels": [6, 7, -100]},
            "labels: number 1 is 6, its id 5 or -100 is needed (labels are not shifted)",
        ),
        ({"input_ids": IDS, "labels": [-100] * 3}, "labels: learns no token"),
        ({"input_ids": IDS, "mask": [0, 0, 0]}, "mask: learns no token"),
        ({"input_ids": IDS, "mask": [0, 2, 1]}, "mask: number 2 is 2, 0 or 1 is needed"),
        ({"input_ids": IDS, "loss_mask": [1]}, "loss_mask: has 1 numbers, input_ids has 3"),
    ],
)
def test_faulty_rows(row: dict[str, Any], message: str) -> None:
    refuse("tokens", row, message)


def test_ids_reach_the_tensors_as_they_are(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    end = tokenizer.eos_token_id
    rows = [
        {"input_ids": [5, 6, 7, 8, end], "labels": [-100, -100, 7, 8, end]},
        {"input_ids": [5, 6, 7], "labels": [-100, 6, 7]},
    ]
    prepared = encoded(tmp_path, rows)
    first, second = prepared.train
    assert (first.input_ids, first.labels) == (rows[0]["input_ids"], rows[0]["labels"])
    assert (second.input_ids, second.labels) == (rows[1]["input_ids"], rows[1]["labels"])
    assert first.prompt_ids == [5, 6]
    assert first.answer == tokenizer.decode([7, 8])
    assert prepared.train.stop_ids == (end,)  # 7 ends a row, and means nothing


def test_an_id_that_the_tokenizer_has_not(tmp_path: Path) -> None:
    size = len(tiny_tokenizer())
    with pytest.raises(DataError) as caught:
        encoded(tmp_path, [{"input_ids": [5, 6]}, {"input_ids": [5, size]}])
    (message,) = messages_of(caught.value)
    assert message.startswith(f"train.jsonl:2: holds the id {size}, the tokenizer has {size} tok")
