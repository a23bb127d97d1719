"""The streamed files are what safetensors itself would read and write."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file, save_file

from qtune.models import writing
from qtune.models.writing import TensorSpec

if TYPE_CHECKING:
    from pathlib import Path

VALUES = {
    "a.weight": torch.arange(12, dtype=torch.float32).reshape(3, 4),
    "b.weight": torch.randn(5, 2).to(torch.bfloat16),
    "c": torch.tensor(7, dtype=torch.int64),
    "d.half": torch.randn(3).to(torch.float16),
    "e.empty": torch.empty(0, 4),
    "f.flag": torch.tensor([True, False, True]),
}


def specs() -> list[TensorSpec]:
    return [TensorSpec(name, tuple(value.shape), value.dtype) for name, value in VALUES.items()]


def test_safetensors_reads_what_was_written(tmp_path: Path) -> None:
    writing.write(tmp_path, [specs()], lambda spec: VALUES[spec.name])
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]
    read = load_file(tmp_path / "model.safetensors")
    assert read.keys() == VALUES.keys()
    for name, value in VALUES.items():
        assert read[name].dtype == value.dtype
        assert torch.equal(read[name], value)


def test_sizes_are_those_of_safetensors(tmp_path: Path) -> None:
    writing.write(tmp_path, [specs()], lambda spec: VALUES[spec.name])
    save_file(VALUES, tmp_path / "theirs.safetensors", metadata={"format": "pt"})
    ours = (tmp_path / "model.safetensors").stat().st_size
    assert abs(ours - (tmp_path / "theirs.safetensors").stat().st_size) <= 64  # header order
    assert sum(spec.bytes for spec in specs()) == 48 + 20 + 8 + 6 + 0 + 3


def test_shards_and_index(tmp_path: Path) -> None:
    files = writing.split(specs(), max_bytes=50)
    assert [[spec.name for spec in file] for file in files] == [
        ["a.weight"],
        ["b.weight", "c", "d.half", "e.empty", "f.flag"],
    ]
    writing.write(tmp_path, files, lambda spec: VALUES[spec.name])
    index = json.loads((tmp_path / writing.INDEX).read_text())
    assert index["metadata"]["total_size"] == 85
    for name, file in index["weight_map"].items():
        assert torch.equal(load_file(tmp_path / file)[name], VALUES[name])
    assert set(index["weight_map"].values()) == {
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    }


def test_a_tensor_larger_than_a_file_gets_its_own(tmp_path: Path) -> None:
    files = writing.split(specs(), max_bytes=1)
    assert [len(file) for file in files] == [1] * len(VALUES)
    writing.write(tmp_path, files, lambda spec: VALUES[spec.name])
    assert len(list(tmp_path.glob("model-*"))) == len(files)


def test_one_tensor_at_a_time_and_progress_to_the_end(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    asked: list[str] = []

    def produce(spec: TensorSpec) -> torch.Tensor:
        asked.append(spec.name)
        assert len(seen) == len(asked) - 1, "the one before is on its way to the disk"
        return VALUES[spec.name]

    writing.write(tmp_path, [specs()], produce, on_progress=lambda *now: seen.append(now))
    assert seen[-1] == (85, 85)


def test_a_tensor_that_is_not_the_promised_one_is_our_bug(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"a\.weight"):
        writing.write(tmp_path, [specs()], lambda _: torch.zeros(1))
