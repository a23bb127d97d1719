"""What goes with data.streaming and what does not."""

from __future__ import annotations

import pytest

from tests.recipe.conftest import Faults, Read

DATA = "model: {name_or_path: org/model}\ndata:\n  train: [{path: org/rows}]\n"


@pytest.mark.parametrize(
    ("keys", "rest", "key"),
    [
        ("streaming: true", "train: {num_train_epochs: 2.0}", "data.streaming"),
        ("streaming: true\n  val_size: 5", "train: {max_steps: 5}", "data.val_size"),
        ("streaming: true\n  deduplicate: true", "train: {max_steps: 5}", "data.deduplicate"),
        ("streaming: true\n  mix: weighted", "train: {max_steps: 5}", "data.mix"),
        ("streaming: true\n  on_bad_row: skip", "train: {max_steps: 5}", "data.on_bad_row"),
        (
            "streaming: true",
            "train: {max_steps: 5, group_by_length: true}",
            "train.group_by_length",
        ),
        ("shuffle_buffer: 7", "", "data.shuffle_buffer"),
        (
            "streaming: true\n  shuffle: false\n  shuffle_buffer: 7",
            "train: {max_steps: 5}",
            "data.shuffle_buffer",
        ),
        ("streaming: true\n  cache_dir: here", "train: {max_steps: 5}", "data.cache_dir"),
    ],
)
def test_what_needs_all_rows_together_is_refused(
    faults: Faults, keys: str, rest: str, key: str
) -> None:
    [fault] = faults(f"{DATA}  {keys}\n{rest}\n", whole=True)
    assert key in fault


def test_what_goes_with_streaming(read: Read) -> None:
    overrides = ("data.streaming=true", "train.max_steps=5", "data.shuffle_buffer=3")
    more = ("data.packing=true", "data.mix=round_robin", "data.eval=[{path: org/other}]")
    asked = read("", *overrides, *more).recipe
    assert (asked.data.streaming, asked.data.shuffle_buffer, asked.data.packing) == (True, 3, True)
