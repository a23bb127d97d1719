"""A weight file of blocks made by threads: its bytes, its hash, its faults."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import time
from typing import TYPE_CHECKING, Any

import pytest
import torch

from qtune.merging import shard_file
from qtune.merging.shard_file import SHEET, write
from qtune.merging.sheet import PAGE, Block, finished

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import Tensor


def block_of(values: Tensor, *, seconds: float = 0.0) -> Block:
    """A block that takes its time; it tells its first value."""

    def make(place: Tensor) -> Any:
        time.sleep(seconds)
        place.copy_(values)
        return values.flatten()[:1].tolist()

    return Block(tuple(values.shape), values.dtype, make)


def drawn(sizes: list[int]) -> list[Tensor]:
    """Values of several dtypes, so that some lie where no tensor of theirs may."""
    dtypes = (torch.float32, torch.uint8, torch.bfloat16, torch.int64)
    random_ = torch.Generator().manual_seed(4)
    return [
        torch.randint(0, 200, (size,), generator=random_).to(dtypes[number % 4])
        for number, size in enumerate(sizes)
    ]


def raw(tensors: list[Tensor]) -> bytes:
    return b"".join(t.reshape(-1).view(torch.uint8).numpy().tobytes() for t in tensors if len(t))


@pytest.mark.parametrize("direct", [True, False], ids=["past the cache", "through it"])
@pytest.mark.parametrize(
    "sizes",
    [
        [],
        [3, 5, 7, 0, 1001],
        [PAGE // 4, PAGE],
        [1, 3 * SHEET // 4 + 1, 11, SHEET // 2, SHEET, 13],
    ],
    ids=["header alone", "small", "whole pages", "larger than a sheet"],
)
def test_blocks_stand_in_their_order(
    tmp_path: Path, sizes: list[int], direct: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not direct:
        monkeypatch.delattr(os, "O_DIRECT", raising=False)
    monkeypatch.setattr(shard_file, "makers", lambda: 3)
    tensors = drawn(sizes)
    delays = random.Random(1)
    blocks = [block_of(one, seconds=delays.uniform(0.0, 0.003)) for one in tensors]
    sha256, told = write(tmp_path / "x", [finished(b"header"), *blocks])
    content = (tmp_path / "x").read_bytes()
    assert content == b"header" + raw(tensors)
    assert sha256 == hashlib.sha256(content).hexdigest()
    assert told == [None, *(one[:1].tolist() for one in tensors)]
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_sheets_are_bounded_and_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    plain = shard_file.Sheet.__init__

    def counted(self: Any, size: int) -> None:
        made.append(size)
        plain(self, size)

    monkeypatch.setattr(shard_file.Sheet, "__init__", counted)
    monkeypatch.setattr(shard_file, "SHEET", 4 * PAGE)
    values = torch.arange(PAGE // 8 + 5)
    write(tmp_path / "x", (block_of(values) for _ in range(60)))
    assert made == [4 * PAGE] * shard_file.sheets()
    assert (tmp_path / "x").stat().st_size == 60 * 8 * len(values)


def test_large_blocks_are_made_one_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_file, "SHEET", 4 * PAGE)
    monkeypatch.setattr(shard_file, "makers", lambda: 3)
    busy: list[int] = []
    seen: list[int] = []

    def make(place: Tensor) -> None:
        large = len(place) > 4 * PAGE
        busy.extend([1] * large)
        time.sleep(0.002)
        place.fill_(7)
        if large:
            seen.append(len(busy))
            busy.pop()

    sizes = [PAGE, 9 * PAGE, 8 * PAGE, PAGE, PAGE, 5 * PAGE]
    write(tmp_path / "x", [Block((size,), torch.uint8, make) for size in sizes * 5])
    assert (tmp_path / "x").read_bytes() == b"\7" * sum(sizes) * 5
    assert seen == [1] * 15


@pytest.mark.parametrize("where", ["maker", "blocks", "disk"])
def test_a_fault_anywhere_is_raised_and_leaves_no_file(
    tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Any) -> None:
        raise OSError(errno.ENOSPC, "no space")

    def blocks() -> Iterator[Block]:
        for number in range(40):
            if number == 20 and where == "blocks":
                fail(None)
            broken = number == 20 and where == "maker"
            yield Block((2**19,), torch.uint8, fail) if broken else block_of(torch.ones(2**17))

    if where == "disk":
        monkeypatch.setattr(shard_file._Press, "_write", lambda *_: fail(None))
    threads = torch.get_num_threads()
    with pytest.raises(OSError, match="no space"):
        write(tmp_path / "x", blocks())
    assert not (tmp_path / "x").exists()
    assert torch.get_num_threads() == threads
