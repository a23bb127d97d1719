"""Broken weight files: one line each, with the file's name and size."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file, save_file

from qtune.errors import ModelError
from qtune.models import load_tokenizer
from qtune.models.shards import read_tensors, tensor_table
from qtune.recipe.inputs import ModelSection
from tests.models.workshop import load_folder

if TYPE_CHECKING:
    from pathlib import Path

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0f1e\nsize 5123456\n"


def write_raw(path: Path, header: object, body: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)
    return path


def test_tensors_are_read_as_safetensors_reads_them(tmp_path: Path) -> None:
    tensors = {
        "a": torch.randn(3, 5),
        "b": torch.randn(7).bfloat16(),
        "scalar": torch.tensor(2.5, dtype=torch.float64),
        "empty": torch.zeros(0, 4),
        "bytes": torch.arange(9, dtype=torch.uint8),
        "flags": torch.tensor([True, False]),
        "half": torch.randn(2, 2, 2).half(),
        "long": torch.tensor([1, -(2**40)]),
    }
    path = tmp_path / "t.safetensors"
    save_file(tensors, path, metadata={"format": "pt"})
    for name, tensor in read_tensors(path, list(tensors)):
        assert tensor.dtype == tensors[name].dtype
        assert torch.equal(tensor, tensors[name])


def test_a_cut_file_is_named_with_its_size(folder: Path) -> None:
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    for length in (0, 5, 8, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ModelError, match=rf"{length} bytes") as caught:
            load_folder(folder)
        assert caught.value.faults[0].place == str(path)
        assert "download" in caught.value.faults[0].hint


@pytest.mark.parametrize(
    "header",
    [
        b"{not json",
        b"\xff\xfe\x00",
        [1, 2],
        {"a": 3},
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0]}},
        {"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}},
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}},
        {"a": {"dtype": "F32", "shape": ["x"], "data_offsets": [0, 8]}},
        {"a": {"shape": [2], "data_offsets": [0, 8]}},
    ],
)
def test_a_broken_header_is_told(header: object, tmp_path: Path) -> None:
    path = write_raw(tmp_path / "t.safetensors", header, body=bytes(8))
    with pytest.raises(ModelError, match="not a whole safetensors file") as caught:
        tensor_table(path)
    assert caught.value.faults[0].place == str(path)


def test_eight_bit_floats_are_refused_by_name(tmp_path: Path) -> None:
    header = {"w": {"dtype": "F8_E4M3", "shape": [8], "data_offsets": [0, 8]}}
    with pytest.raises(ModelError, match="w is stored as F8_E4M3"):
        tensor_table(write_raw(tmp_path / "t.safetensors", header, body=bytes(8)))


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_git_lfs_pointer_is_recognised(name: str, folder: Path) -> None:
    (folder / name).write_text(POINTER)
    section = ModelSection(name_or_path=str(folder))
    with pytest.raises(ModelError, match="git-lfs pointer") as caught:
        load_tokenizer(section) if name.startswith("tokenizer") else load_folder(folder)
    assert caught.value.faults[0].place == str(folder / name)


@pytest.mark.parametrize("value", ["nan", "inf"])
@pytest.mark.parametrize("name", ["model.layers.1.mlp.up_proj.weight", "model.norm.weight"])
def test_a_value_that_is_not_finite_is_named(name: str, value: str, folder: Path) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors[name].view(-1)[5] = float(value)
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=rf"{name} holds {value} \(element 5 of"):
        load_folder(folder)


def test_a_file_that_changes_within_a_clock_tick_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"one": torch.zeros(4)}, path)
    assert list(tensor_table(path)) == ["one"]
    before = path.stat()
    save_file({"two": torch.zeros(4)}, path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert list(tensor_table(path)) == ["two"]
