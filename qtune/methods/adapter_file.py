"""The two files of an adapter folder, read with care: no pointers, pickles or broken files."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from qtune.artefacts import read_object, refuse_pointer
from qtune.errors import ModelError
from qtune.methods.peft_format import CONFIG_FILE
from qtune.methods.safetensors_file import content_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

WEIGHTS_FILE = "adapter_model.safetensors"
PICKLE_FILE = "adapter_model.bin"


def read_config(folder: Path) -> dict[str, Any]:
    """adapter_config.json as an object."""
    path = folder / CONFIG_FILE
    if not folder.is_dir():
        raise ModelError("no such folder", place=str(folder))
    if not path.is_file():
        raise ModelError(f"no {CONFIG_FILE}: not an adapter folder", place=str(folder))
    return read_object(path)


def read_tensors(folder: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(tensors on the CPU, metadata) of the weights file."""
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        _refuse_missing(folder)
    refuse_pointer(path)
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"not a whole safetensors file: {error}",
            place=str(path),
            hint="the copy or download was cut off; fetch it again",
        ) from error


def digest(tensors: Mapping[str, Tensor]) -> str:
    """sha256 of names, dtypes, shapes and bytes, independent of their order."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        total.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        total.update(content_of(tensor))
    return total.hexdigest()


def _refuse_missing(folder: Path) -> None:
    pickle = folder / PICKLE_FILE
    if not pickle.is_file():
        raise ModelError(f"no {WEIGHTS_FILE}", place=str(folder))
    refuse_pointer(pickle)
    raise ModelError(
        "a .bin file is a pickle, which can run code when it is read; qtune never reads one",
        place=str(pickle),
        hint=f"write it as {WEIGHTS_FILE} with the tool that made it",
    )
