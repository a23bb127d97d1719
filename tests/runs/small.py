"""Small checkpoints whose content tells their step."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qtune import durable
from qtune.runs import checkpoint, manifest


def tensor_file(values: bytes) -> bytes:
    """A safetensors file of bytes, made by hand."""
    header = json.dumps(
        {"a": {"dtype": "U8", "shape": [len(values)], "data_offsets": [0, len(values)]}}
    )
    return len(header).to_bytes(8, "little") + header.encode() + values


def files(step: int) -> dict[str, bytes]:
    """What the checkpoint of a step holds."""
    return {
        "adapter_model.safetensors": tensor_file(
            bytes((step + number) % 251 for number in range(600))
        ),
        "optim.safetensors": tensor_file(bytes((step * number) % 251 for number in range(900))),
        "state.json": json.dumps({"step": step, "position": step * 4}).encode(),
    }


def filler(step: int) -> Callable[[Path], None]:
    """Writes them as the code that trains does, through `durable`."""

    def fill(draft: Path) -> None:
        for name, content in files(step).items():
            durable.write_bytes(draft / name, content)

    return fill


def save_step(folder: Path, step: int, **facts: Any) -> None:
    """Save the checkpoint of a step."""
    checkpoint.save(folder / checkpoint.name_of(step), filler(step), facts=facts)


def contents(path: Path) -> dict[str, bytes]:
    """The files of a checkpoint, without its manifest."""
    return {item.name: item.read_bytes() for item in path.iterdir() if item.name != manifest.NAME}
