"""safetensors files: their headers checked against their sizes, their tensors one at a time."""

from __future__ import annotations

import json
import mmap
import os
import sys
from collections import defaultdict
from functools import lru_cache
from math import prod
from typing import TYPE_CHECKING, Any

import torch

from qtune.artefacts import refuse_pointer
from qtune.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from io import FileIO
    from pathlib import Path

    from torch import Tensor

OWN_PAGES = 2**17
AHEAD = 2**26  # bytes that the system fetches before they are asked for
LONGEST_HEADER = 100_000_000  # as the format has it
# What a weight or a constant may be stored as; 8-bit floats need scales that no code here applies.
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_AGAIN = "copy or download it again"


def tensor_table(path: Path) -> dict[str, dict[str, Any]]:
    """Header of a safetensors file: name -> dtype, shape, data_offsets and data_start in the file.

    `ModelError` with file name and size where header and size disagree.
    """
    refuse_pointer(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            raise _broken(path, "cut off, or no safetensors file", size)
        if length > LONGEST_HEADER:
            raise _broken(path, f"a header of {length} bytes", size)
        return _parse(path, size, file.read(length))


@lru_cache(maxsize=256)
def _parse(path: Path, size: int, header: bytes) -> dict[str, dict[str, Any]]:
    """The table of one header: it is asked for again for each constant of a weight.

    Known again by its bytes, not by the file's time: a file can change twice in one clock tick.
    """
    try:
        table = json.loads(header)
        table.pop("__metadata__", None)
        end = max((entry["data_offsets"][1] for entry in table.values()), default=0)
        fits = all(_size(entry) == _span(entry) for entry in table.values())
    except (ValueError, AttributeError, TypeError, LookupError, RecursionError) as error:
        raise _broken(path, "broken header", size) from error
    if not fits:
        raise _broken(path, "a tensor's shape and bytes disagree", size)
    start = 8 + len(header)
    if start + end != size:
        raise _broken(path, f"its header says {start + end} bytes", size)
    for name, entry in table.items():
        if entry["dtype"] not in DTYPES:
            message = f"{name} is stored as {entry['dtype']}, which qtune cannot train on"
            raise ModelError(message, place=str(path), hint="take the 16-bit model")
        entry["data_start"] = start + entry["data_offsets"][0]
    return table  # type: ignore[no-any-return]


def read_from(index: Mapping[str, Path], names: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
    """As `read_tensors`, from the files of an index, each file opened once."""
    by_file: dict[Path, list[str]] = defaultdict(list)
    for name in names:
        by_file[index[name]].append(name)
    for file in sorted(by_file):
        yield from read_tensors(file, by_file[file])


def read_tensors(path: Path, names: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) as stored, one at a time, in memory of its own.

    The file is read and not mapped: its pages would count as resident until it is closed, and a
    file that is replaced under a mapping kills the process. The system is told to fetch what comes
    next, so that the disk is busy while a tensor is put in its place.
    """
    table = tensor_table(path)
    with path.open("rb", buffering=0) as file:
        told = 0
        for name in names:
            entry = table[name]
            told = _announce(file, entry["data_start"], told)
            file.seek(entry["data_start"])
            content = _memory(_span(entry))
            if not _read(file, content):
                raise _broken(path, f"{name} ends early", path.stat().st_size)
            yield name, _tensor(content, entry)
            del content


def read_bytes(path: Path, entry: Mapping[str, Any], start: int, stop: int) -> Tensor:
    """Bytes [start, stop) of one tensor of a table, as uint8 in memory of their own."""
    content = torch.empty(stop - start, dtype=torch.uint8)
    with path.open("rb", buffering=0) as file:
        file.seek(entry["data_start"] + start)
        if not _read(file, content.numpy().data):
            raise _broken(path, "a tensor ends early", path.stat().st_size)
    return content


def read_rows(path: Path, entry: Mapping[str, Any], start: int, stop: int) -> Tensor:
    """Rows [start, stop) of one tensor of a table, along its first dimension."""
    dtype, shape = DTYPES[entry["dtype"]], list(entry["shape"])
    row = dtype.itemsize * prod(shape[1:])
    flat = read_bytes(path, entry, start * row, stop * row).view(dtype)
    return flat.reshape([stop - start, *shape[1:]] if shape else [])


def _announce(file: FileIO, position: int, told: int) -> int:
    """Tell the system that a file is read on from a position; returns how far it was told."""
    if not hasattr(os, "posix_fadvise") or position + AHEAD // 2 < told:
        return told
    start = max(position, told)
    os.posix_fadvise(file.fileno(), start, position + AHEAD - start, os.POSIX_FADV_WILLNEED)
    return position + AHEAD


def _memory(size: int) -> bytearray | mmap.mmap:
    """Zeroed bytes; large ones in pages of their own, which the system gets back at once.

    The heap would keep freed ones, scattered between the weights that stay.
    """
    if size < OWN_PAGES or sys.platform == "win32":
        return bytearray(size)
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def _read(file: FileIO, content: bytearray | mmap.mmap | memoryview) -> bool:
    """Fill the bytes from where the file stands; False when it ends before."""
    done = 0
    with memoryview(content) as target:
        while done < len(target):
            count = file.readinto(target[done:])
            if not count:
                return False
            done += count
    return True


def _tensor(content: bytearray | mmap.mmap, entry: Mapping[str, Any]) -> Tensor:
    dtype = DTYPES[entry["dtype"]]
    flat = torch.frombuffer(content, dtype=dtype) if len(content) else torch.empty(0, dtype=dtype)
    return flat.reshape(entry["shape"])


def _span(entry: Mapping[str, Any]) -> int:
    start, end = entry["data_offsets"]
    return end - start if 0 <= start <= end else -1


def _size(entry: Mapping[str, Any]) -> int:
    """Bytes that the shape asks for; those found where the dtype is refused later anyway."""
    dtype = DTYPES.get(entry["dtype"])
    return prod(entry["shape"]) * dtype.itemsize if dtype is not None else _span(entry)


def _broken(path: Path, what: str, size: int) -> ModelError:
    message = f"not a whole safetensors file of {size} bytes: {what}"
    return ModelError(message, place=str(path), hint=_AGAIN)
