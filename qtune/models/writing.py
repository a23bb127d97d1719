"""Safetensors files written tensor by tensor, so that one tensor at a time is in memory.

All shapes and dtypes are known before the first byte, so the headers, the number of files, the
index and the disk space are too. Format: 8 bytes of header length, the header as JSON, the data.
"""

from __future__ import annotations

import json
import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from qtune.durable import write_json
from qtune.models.shards import DTYPES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from torch import Tensor

ALIGNMENT = 8
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class TensorSpec:
    """A tensor before it exists."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def bytes(self) -> int:
        """Its size in the file."""
        count = 1
        for size in self.shape:
            count *= size
        return count * self.dtype.itemsize


def split(specs: Sequence[TensorSpec], *, max_bytes: int) -> list[list[TensorSpec]]:
    """Files of at most `max_bytes` each, in order; a larger tensor gets a file of its own."""
    shards: list[list[TensorSpec]] = [[]]
    filled = 0
    for spec in specs:
        if shards[-1] and filled + spec.bytes > max_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(spec)
        filled += spec.bytes
    return shards


def file_names(shards: int) -> list[str]:
    """The names that transformers looks for."""
    if shards == 1:
        return [SINGLE]
    return [f"model-{number:05d}-of-{shards:05d}.safetensors" for number in range(1, shards + 1)]


def write(
    folder: Path,
    shards: Sequence[Sequence[TensorSpec]],
    produce: Callable[[TensorSpec], Tensor],
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write all files and the index; `on_progress(done, all)` in bytes after each tensor."""
    names = file_names(len(shards))
    total = sum(spec.bytes for shard in shards for spec in shard)
    done = 0
    for file_name, shard in zip(names, shards, strict=True):
        with (folder / file_name).open("xb") as stream:
            stream.write(header(shard))
            for spec in shard:
                stream.write(raw(produce(spec), spec))
                done += spec.bytes
                if on_progress is not None:
                    on_progress(done, total)
            stream.flush()
            os.fsync(stream.fileno())
    if len(shards) > 1:
        write_index(folder, shards)


def header(shard: Sequence[TensorSpec]) -> bytes:
    """Length and JSON of one file's header, padded so that the data is aligned."""
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    start = 0
    for spec in shard:
        entries[spec.name] = {
            "dtype": NAMES[spec.dtype],
            "shape": list(spec.shape),
            "data_offsets": [start, start + spec.bytes],
        }
        start += spec.bytes
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    return struct.pack("<Q", len(text)) + text


def raw(tensor: Tensor, spec: TensorSpec) -> memoryview:
    """The bytes of a tensor, which must be the one that the header promises."""
    assert tuple(tensor.shape) == spec.shape, f"{spec.name}: {tuple(tensor.shape)} != {spec.shape}"
    assert tensor.dtype == spec.dtype, f"{spec.name}: {tensor.dtype} != {spec.dtype}"
    return content_of(tensor)


def content_of(tensor: Tensor) -> memoryview:
    """The bytes of a tensor; those of one on the CPU are not copied."""
    content: Any = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return memoryview(content)


def write_index(folder: Path, shards: Sequence[Sequence[TensorSpec]]) -> None:
    """The file that tells which of several holds what."""
    names = file_names(len(shards))
    weight_map = {
        spec.name: name for name, shard in zip(names, shards, strict=True) for spec in shard
    }
    total = sum(spec.bytes for shard in shards for spec in shard)
    write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})
