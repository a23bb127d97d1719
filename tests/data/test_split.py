"""Held-out rows: apart by content and by group; equal rows found and taken out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from qtune.data import prepare
from qtune.errors import DataError
from qtune.recipe.inputs import SourceSection
from tests.data.building import encoded, recipe, write_jsonl
from tests.tiny import tiny_tokenizer


def by_topic(count: int, topics: int) -> list[dict[str, Any]]:
    return [
        {"prompt": f"{n}", "completion": f"answer {n}", "topic": f"t{n % topics}"}
        for n in range(count)
    ]


@pytest.mark.parametrize("seed", range(5))
def test_no_group_is_on_both_sides(tmp_path: Path, seed: int) -> None:
    rows = by_topic(60, 12)
    asked = recipe(write_jsonl(tmp_path / "a.jsonl", rows), val_size=0.25, split_by="topic")
    asked = asked.model_copy(update={"train": asked.train.model_copy(update={"seed": seed})})
    found = prepare(asked, tiny_tokenizer())
    assert found.eval is not None
    sides = [
        {rows[int(row.place.split(":")[1]) - 1]["topic"] for row in side}
        for side in (found.train, found.eval)
    ]
    assert not sides[0] & sides[1]
    assert len(sides[0] | sides[1]) == 12
    assert len(found.eval) == 15


def test_equal_rows_join_their_groups(tmp_path: Path) -> None:
    rows = [{"prompt": "same", "completion": "same", "topic": t} for t in "ab"]
    rows += [{"prompt": t, "completion": f"{t}{n}", "topic": t} for t in "abcd" for n in range(3)]
    found = encoded(tmp_path, rows, val_size=8, split_by="topic")
    assert found.eval is not None
    held = {row.place for row in found.eval}
    joined = {f"train.jsonl:{n}" for n in range(1, 9)}
    assert held == joined or not held & joined


def test_a_group_that_is_too_large_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"asks for 2 rows, but the smallest set .* has 10"):
        encoded(tmp_path, by_topic(20, 2), val_size=2, split_by="topic")


def test_a_row_without_the_group_is_a_fault(tmp_path: Path) -> None:
    rows = [*by_topic(3, 3), {"prompt": "x", "completion": "y"}]
    with pytest.raises(DataError) as caught:
        encoded(tmp_path, rows, val_size=1, split_by="topic")
    assert str(caught.value.faults[0]).startswith("train.jsonl:4: topic, which data.split_by names")


def test_repeated_rows_are_counted_and_taken_out_when_asked(tmp_path: Path) -> None:
    rows = [{"prompt": f"{n % 7}", "completion": "x"} for n in range(10)]
    kept = encoded(tmp_path, rows)
    assert (len(kept.train), kept.report.duplicates) == (10, 3)
    assert any("3 training rows repeat an earlier one (kept" in x for x in kept.report.lines())
    once = encoded(tmp_path, rows, deduplicate=True)
    assert [row.place for row in once.train] == [f"train.jsonl:{n}" for n in range(1, 8)]
    assert once.report.duplicates == 3


def test_training_rows_that_are_evaluated_are_taken_out_when_asked(tmp_path: Path) -> None:
    rows = [{"prompt": f"{n}", "completion": "x"} for n in range(10)]
    held = SourceSection(path=str(write_jsonl(tmp_path / "eval.jsonl", rows[8:])))
    found = encoded(tmp_path, rows, deduplicate=True, eval=(held,))
    assert (len(found.train), found.report.shared) == (8, 2)
    with pytest.raises(DataError, match="every training row is an evaluation row too"):
        encoded(tmp_path, rows[8:], deduplicate=True, eval=(held,))
