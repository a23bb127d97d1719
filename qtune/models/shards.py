"""safetensors files: their headers checked against their sizes, their tensors one at a time."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from qtune.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from torch import Tensor

LFS_MARK = b"version https://git-lfs"
# A mapped file's pages stay resident until it is closed: opened anew after so many bytes.
WINDOW = 2**25
_AGAIN = "copy or download it again"


def refuse_pointer(path: Path) -> None:
    """`ModelError` for a git-lfs pointer that stands where the file should be."""
    with path.open("rb") as file:
        if file.read(len(LFS_MARK)) == LFS_MARK:
            hint = "run git lfs pull in its folder"
            raise ModelError("a git-lfs pointer, not the file itself", place=str(path), hint=hint)


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
        try:
            table = json.loads(file.read(length))
            table.pop("__metadata__", None)
            end = max((entry["data_offsets"][1] for entry in table.values()), default=0)
        except (UnicodeDecodeError, ValueError, AttributeError, TypeError, LookupError) as error:
            raise _broken(path, "broken header", size) from error
    if 8 + length + end != size:
        raise _broken(path, f"its header says {8 + length + end} bytes", size)
    for entry in table.values():
        entry["data_start"] = 8 + length + entry["data_offsets"][0]
    return table  # type: ignore[no-any-return]


def read_tensors(path: Path, names: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) as stored; each is a view on the mapped file, so copy what you keep."""
    from safetensors import SafetensorError, safe_open

    remaining = list(names)
    try:
        while remaining:
            read = 0
            with safe_open(path, framework="pt") as shard:
                while remaining and read < WINDOW:
                    tensor = shard.get_tensor(remaining[0])
                    read += tensor.numel() * tensor.element_size()
                    yield remaining.pop(0), tensor
                    del tensor
    except SafetensorError as error:
        raise _broken(path, str(error), path.stat().st_size) from error


def _broken(path: Path, what: str, size: int) -> ModelError:
    message = f"not a whole safetensors file of {size} bytes: {what}"
    return ModelError(message, place=str(path), hint=_AGAIN)
