"""Slices mean what they mean to `datasets`, and what is no slice is refused."""

from __future__ import annotations

import pytest
from datasets.arrow_reader import ReadInstruction

from qtune.errors import UsageError
from qtune.recipe.splits import Split, list_of, parse, word_of

SPECS = [
    "train",
    "train[:]",
    "train[:5%]",
    "train[:15%]",
    "train[33%:66%]",
    "train[-10%:]",
    "train[2:5]",
    "train[100:200]",
    "train[-3:]",
    "train[:-2]",
    "train[50%:]",
]


@pytest.mark.parametrize("rows", [0, 1, 3, 10, 50, 101, 250])
@pytest.mark.parametrize("spec", SPECS)
def test_bounds_are_those_of_datasets(spec: str, rows: int) -> None:
    [theirs] = ReadInstruction.from_spec(spec).to_absolute({"train": rows})
    assert parse(spec).bounds(rows) == (theirs.from_, theirs.to)


def test_a_slice_that_ends_before_it_begins_is_empty() -> None:
    assert parse("train[10:2]").bounds(100) == (10, 10)


def test_which_slices_need_the_number_of_rows() -> None:
    assert [parse(spec).relative for spec in ("a", "a[2:5]", "a[:5%]", "a[-3:]")] == [
        False,
        False,
        True,
        True,
    ]
    assert parse("dev[ 2 : 5 ]") == Split("dev", 2, 5)


@pytest.mark.parametrize("spec", ["train[5%", "train[a:b]", "train[3]", "[:5]", "a+b", "a[:5%](x)"])
def test_what_is_no_split_says_how_to_write_one(spec: str) -> None:
    with pytest.raises(UsageError, match=r"is no split of a local file.*train\[:5%\]"):
        parse(spec)


def test_more_than_all_rows_is_refused_as_datasets_does() -> None:
    with pytest.raises(UsageError, match="beyond 100%"):
        parse("train[:200%]")
    with pytest.raises(ValueError, match="Percent slice"):
        ReadInstruction.from_spec("train[:200%]")


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train.jsonl", "train"),
        ("imdb-test.arrow", "test"),
        ("validation-00000-of-00002.parquet", "validation"),
        ("my_dev.csv", "validation"),
        ("strain.jsonl", None),
        ("train_test.jsonl", None),
        ("data.jsonl", None),
    ],
)
def test_words_of_file_names(name: str, split: str | None) -> None:
    assert word_of(name) == split


@pytest.mark.parametrize("names", [["data"], ["train"], ["train", "data"]])
def test_the_list_of_an_object_is_the_split_or_the_only_one(names: list[str]) -> None:
    assert list_of("train", names, place="f.json") == names[0]


@pytest.mark.parametrize(
    ("asked", "names"), [("train", ["test"]), ("train", ["a", "b"]), ("test", ["data"])]
)
def test_no_other_list_is_taken_for_a_split(asked: str, names: list[str]) -> None:
    listed = ", ".join(names)
    with pytest.raises(UsageError, match=f"f.json: no split '{asked}'; there are: {listed}"):
        list_of(asked, names, place="f.json")
