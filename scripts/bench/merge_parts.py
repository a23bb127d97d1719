"""The parts that a merge of NF4 and LoRA cannot do without, each alone on the bytes of that merge.

Every part runs in one thread, on blocks that stay in the cache as they could in the merge. A merge
that reads, unfolds, adds, hashes and writes takes no less than their computing time over the number
of cores, and no less than the disk or the hash takes alone.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BLOCK = 2**18  # elements
SHEET = 2**22  # bytes
CORES = 2


class Clocks:
    """Wall and computing seconds of each part."""

    def __init__(self) -> None:
        self.wall: dict[str, float] = {}
        self.computing: dict[str, float] = {}

    @contextmanager
    def of(self, part: str) -> Iterator[None]:
        """Add what passes in the block to a part."""
        wall, own = time.perf_counter(), time.thread_time()
        yield
        self.wall[part] = self.wall.get(part, 0.0) + time.perf_counter() - wall
        self.computing[part] = self.computing.get(part, 0.0) + time.thread_time() - own


def arithmetic(clocks: Clocks, shape: tuple[int, int], rank: int, times: int) -> None:
    """Unfold so many weights of a shape, add a product to each and round it, block by block."""
    import torch

    from qtune.ops.nf4 import library

    functional = library().functional
    out, inner = shape
    rows = BLOCK // inner
    codes = torch.randint(0, 256, (rows * inner // 2, 1), dtype=torch.uint8)
    state = functional.QuantState(
        absmax=torch.rand(rows * inner // 64),
        shape=torch.Size((rows, inner)),
        blocksize=64,
        quant_type="nf4",
        dtype=torch.bfloat16,
    )
    up, down = torch.randn(rows, rank), torch.randn(rank, inner)
    wide, result = torch.empty(rows, inner), torch.empty(rows, inner, dtype=torch.bfloat16)
    count = max(1, round(times * out / rows))
    with clocks.of("unfold"):
        for _ in range(count):
            weight = functional.dequantize_4bit(codes, state)
    with clocks.of("product and rounding"):
        for _ in range(count):
            wide.copy_(weight).addmm_(up, down, alpha=2.0)
            result.copy_(wide)


def read(clocks: Clocks, checkpoint: Path) -> None:
    """All bytes of the checkpoint, which are in the page cache."""
    content = bytearray(BLOCK // 2)
    with clocks.of("read"):
        for path in sorted(checkpoint.glob("*.safetensors")):
            with path.open("rb", buffering=0) as stream:
                while stream.readinto(content):
                    pass


def write(clocks: Clocks, path: Path, size: int) -> None:
    """So many bytes, hashed, and put on the disk without the page cache, as far as it can be."""
    sheet = mmap.mmap(-1, SHEET)
    sheet[:] = os.urandom(SHEET)
    digest = hashlib.sha256()
    with clocks.of("sha256"):
        for _ in range(size // SHEET):
            digest.update(sheet)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | getattr(os, "O_DIRECT", 0))
    with clocks.of("write"):
        for _ in range(size // SHEET):
            os.write(handle, sheet)
        os.fsync(handle)
    os.close(handle)
    path.unlink()


def alone(place: Path, shape_name: str, *, rank: int, size: int) -> dict[str, Any]:
    """Seconds of each part, and the least that a merge on two cores takes."""
    import torch
    from random_model import SHAPES

    torch.set_num_threads(1)
    clocks = Clocks()
    shape = SHAPES[shape_name]
    read(clocks, place / "base")
    for each in shape.linears.values():
        arithmetic(clocks, each, rank, shape.layers)
    write(clocks, place / "written", size)
    computing = sum(clocks.computing.values())
    limit = max(computing / CORES, clocks.computing["sha256"], clocks.wall["write"])
    return {
        "computing_seconds": {part: round(each, 2) for part, each in clocks.computing.items()},
        "seconds": {part: round(each, 2) for part, each in clocks.wall.items()},
        "computing_seconds_of_all": round(computing, 2),
        "least_seconds_on_two_cores": round(limit, 2),
    }
