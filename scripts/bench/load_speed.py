"""How fast a 4-bit copy is loaded, against reading the same files.

    python scripts/bench/load_speed.py [--shape 1b] [--rounds 5] [--folder F] [--output FILE.json]

A random Llama is stored in 4 bits, in the layout that `qtune quantize` writes. In each round, in
turn: its files are read into one buffer of 8 MB, as `cat` does; read into memory that stays, which
is what loading has to do at least; loaded to stay on the CPU; and loaded to be streamed. First cold
(the system is told to drop the files from its cache before each), then warm.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import random_model
import torch

from qtune.models import load
from qtune.recipe.inputs import ModelSection, QuantizationSection

if TYPE_CHECKING:
    from collections.abc import Callable

    from qtune.recipe.steps import Base

BUFFER = 2**23


def evict(files: list[Path]) -> None:
    """Drop files from the cache, as far as the system does what it is told."""
    for path in files:
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def read(files: list[Path]) -> None:
    """Read everything, keep nothing."""
    buffer = bytearray(BUFFER)
    for path in files:
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def keep(files: list[Path]) -> None:
    """Read everything into memory that was not touched before."""
    kept = []
    for path in files:
        with path.open("rb", buffering=0) as file:
            left = path.stat().st_size
            while left:
                piece = mmap.mmap(-1, min(BUFFER, left), flags=mmap.MAP_PRIVATE)
                with memoryview(piece) as content:
                    left -= file.readinto(content)
                kept.append(piece)


def loader(folder: Path, base: Base) -> Callable[[list[Path]], None]:
    """Loads the model of a folder."""

    def run(_: list[Path]) -> None:
        load(
            ModelSection(name_or_path=str(folder)),
            QuantizationSection(),
            device=torch.device("cpu"),
            activations="none",
            base=base,
        )

    return run


def bench(folder: Path, shape: str, rounds: int) -> dict[str, Any]:
    """Seconds and rates of everything, and loading as a share of reading."""
    random_model.write(folder, random_model.SHAPES[shape], torch.device("cpu"))
    files = sorted(folder.glob("*.safetensors"))
    size = sum(path.stat().st_size for path in files)
    what = {
        "read": read,
        "read and kept": keep,
        "loaded": loader(folder, "resident"),
        "loaded to stream": loader(folder, "stream"),
    }
    what["loaded to stream"](files)  # imports
    result: dict[str, Any] = {"shape": shape, "bytes": size, "rounds": rounds}
    for temperature in ("cold", "warm"):
        seconds: dict[str, list[float]] = {name: [] for name in what}
        for _ in range(rounds):
            for name, action in what.items():
                if temperature == "cold":
                    evict(files)
                started = time.perf_counter()
                action(files)
                seconds[name].append(time.perf_counter() - started)
        result[temperature] = _told(seconds, size)
    return result


def _told(seconds: dict[str, list[float]], size: int) -> dict[str, Any]:
    median = {name: statistics.median(times) for name, times in seconds.items()}
    return {
        "seconds": {name: [round(one, 3) for one in times] for name, times in seconds.items()},
        "megabytes_per_second": {name: round(size / one / 1e6) for name, one in median.items()},
        "loaded_to_read": round(median["read"] / median["loaded"], 3),
        "loaded_to_read_and_kept": round(median["read and kept"] / median["loaded"], 3),
    }


def main() -> None:
    """Measure, print, and write the JSON where told."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=sorted(random_model.SHAPES), default="1b")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="keep the model here")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary) / "model"
        result = bench(folder, arguments.shape, arguments.rounds)
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.output:
        arguments.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
