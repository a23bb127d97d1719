"""Texts and labels: by name, by number, from lists and files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from qtune.data.row import Turn
from qtune.errors import DataError
from tests.data.building import encoded, messages_of
from tests.data.formats.reading import examples, only, refuse

NAMES = ("negative", "positive")


def learnt(label: Any, **keys: Any) -> str:
    example = only("classification", {"text": "Good!", "label": label}, **keys)
    assert example.turns[0] == Turn("prompt", "Good!\n\nLabel:\n")
    (answer,) = (turn for turn in example.turns if turn.train)
    return answer.text


def test_a_name_is_learnt_as_it_stands() -> None:
    assert learnt("card_arrival") == "card_arrival"
    assert learnt("3") == "3"


@pytest.mark.parametrize("label", ["positive", 1, "1", " positive "])
def test_names_and_numbers_of_a_list(label: Any) -> None:
    assert learnt(label, labels=NAMES) == "positive"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("labels.txt", "negative\npositive\n"),
        ("labels.txt", "\ufeffnegative\r\npositive"),
        ("mapping.txt", "0\tnegative\n1\tpositive\n"),
        ("labels.json", '["negative",\n "positive"]'),
        ("labels.json", '{"0": "negative", "1": "positive"}'),
    ],
)
def test_names_from_a_file(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert learnt(1, labels=name) == "positive"
    assert learnt("negative", labels=name) == "negative"


def test_a_file_may_number_from_one(tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text('{"1": "World", "2": "Sports"}')
    assert learnt("2", labels="labels.json") == "Sports"
    row = {"text": "a", "label": 0}
    refuse("classification", row, "label: is 0, labels are numbered from 1", labels="labels.json")


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("a\nb\n")
    assert learnt(1, labels="labels.txt") == "b"
    (tmp_path / "labels.txt").write_text("a\nlonger\n")
    assert learnt(1, labels="labels.txt") == "longer"


def test_a_template_of_ones_own() -> None:
    row = {"text": "Good!", "label": "a", "n": 3}
    found = only("classification", row, prompt_template="{n}: {text} ->")
    assert found.turns[0] == Turn("prompt", "3: Good! ->")


@pytest.mark.parametrize(
    ("label", "keys", "message"),
    [
        ("positve", {"labels": NAMES}, "'positve' is none of the 2 labels (did you mean positive?"),
        (
            "maybe",
            {"labels": NAMES},
            "'maybe' is none of the 2 labels (labels: negative, positive)",
        ),
        (2, {"labels": NAMES}, "is 2, labels are numbered from 0 to 1"),
        (-1, {"labels": NAMES}, "is -1, labels are numbered from 0 to 1"),
        ("7", {"labels": NAMES}, "is 7, labels are numbered from 0 to 1"),
        (1, {}, "is the number 1, its name is needed (give the source labels: a list of names"),
        (None, {}, "is null, text or a whole number is needed"),
        (True, {}, "is a boolean, text or a whole number is needed"),
        (0.5, {}, "is a number, text or a whole number is needed"),
        (["a"], {}, "is a list, text or a whole number is needed"),
        ("", {}, "is empty"),
    ],
)
def test_faulty_labels(label: Any, keys: dict[str, Any], message: str) -> None:
    refuse("classification", {"text": "a", "label": label}, f"label: {message}", **keys)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "", "label": "a"}, "text: is empty"),
        ({"text": None, "label": "a"}, "text: is null, text is needed"),
        ({"label": "a"}, "text: missing"),
        ({"text": "a"}, "label: missing"),
    ],
)
def test_faulty_rows(row: dict[str, Any], message: str) -> None:
    refuse("classification", row, message)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("labels.txt", ""),
        ("labels.json", "{"),
        ("labels.json", "[]"),
        ("labels.json", "3"),
        ("labels.json", "[1, 2]"),
        ("labels.json", '["a", ""]'),
        ("labels.json", '{"x": "a"}'),
    ],
)
def test_a_file_without_labels(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=f"^{name}: holds no labels"):
        examples("classification", {"text": "a", "label": "b"}, labels=name)


def test_a_label_that_stands_twice() -> None:
    with pytest.raises(DataError, match="labels: holds the label 'a' twice"):
        examples("classification", {"text": "a", "label": "a"}, labels=("a", "b", "a"))


def test_an_absent_file_is_told_once(tmp_path: Path) -> None:
    rows = [{"text": "a", "label": 0}] * 3
    with pytest.raises(DataError) as caught:
        encoded(tmp_path, rows, source={"labels": "nothing.txt"})
    (message,) = messages_of(caught.value)
    assert message == "nothing.txt: labels: cannot be read: No such file or directory"


def test_a_changed_file_of_labels_makes_other_rows(tmp_path: Path) -> None:
    rows = [{"text": "a", "label": 0}] * 3
    learnt = []
    for names in (["x", "y"], ["z", "y"]):
        (tmp_path / "labels.json").write_text(json.dumps(names))
        prepared = encoded(tmp_path, rows, source={"labels": "labels.json"}, cache_dir="cache")
        learnt.append(prepared.train[0].answer)
    assert learnt == ["x", "z"]
