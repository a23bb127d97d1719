"""Faulty rows: refused together, or skipped and counted up to a bound."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qtune.data import prepare
from qtune.errors import DataError
from tests.data.building import recipe
from tests.tiny import tiny_tokenizer

GOOD = json.dumps({"prompt": "a", "completion": "b"})
BAD = ['{"prompt": "a"', '{"prompt": "a", "completion": 5}']


def lines(folder: Path, good: int, bad: list[str]) -> Path:
    path = folder / "a.jsonl"
    path.write_text("\n".join([GOOD, *bad, *[GOOD] * (good - 1)]) + "\n")
    return path


def test_they_are_an_error_by_default(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        prepare(recipe(lines(tmp_path, 300, BAD)), tiny_tokenizer())
    assert [fault.place for fault in caught.value.faults] == ["a.jsonl:2", "a.jsonl:3"]


def test_a_few_are_skipped_and_told(tmp_path: Path) -> None:
    asked = recipe(lines(tmp_path, 200, BAD), on_bad_row="skip")
    for _ in range(2):  # the second time from the cache
        found = prepare(asked, tiny_tokenizer())
        assert len(found.train) == 200
        assert [row.place for row in found.train[:2]] == ["a.jsonl:1", "a.jsonl:4"]
        assert found.report.to_dict()["train"]["sources"][0]["skipped"] == 2
        said = "\n".join(found.report.lines())
        assert "2 faulty rows skipped; the first: a.jsonl:2: not valid JSON" in said


@pytest.mark.parametrize("bad", [BAD, BAD * 3])
def test_more_than_one_percent_is_an_error_with_all_of_them(tmp_path: Path, bad: list[str]) -> None:
    asked = recipe(lines(tmp_path, 100, bad), on_bad_row="skip")
    with pytest.raises(DataError, match=r"of 10[26] rows are faulty, more than can be skipped"):
        prepare(asked, tiny_tokenizer())


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", f"[{', '.join([GOOD] * 200)} {GOOD}, {', '.join([GOOD] * 200)}]"),
        ("a.csv", "prompt,completion\n" + "a,b\n" * 200 + 'a,"b\n' + "a,b\n" * 200),
    ],
)
def test_a_fault_that_hides_the_rest_of_the_file_is_not_skipped(
    tmp_path: Path, name: str, text: str
) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(DataError, match="the rows behind a fault cannot be read"):
        prepare(recipe(path, on_bad_row="skip"), tiny_tokenizer())


def test_a_file_of_faults_is_no_data(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(BAD[0])
    with pytest.raises(DataError, match=r"a\.jsonl:1: not valid JSON"):
        prepare(recipe(path, on_bad_row="skip"), tiny_tokenizer())
