"""Blocks that are yet to be made, and the part of a file in memory that they are made in."""

from __future__ import annotations

import mmap
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import torch

from qtune.models.writing import content_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future, ThreadPoolExecutor

    from torch import Tensor

PAGE = mmap.PAGESIZE


@dataclass(frozen=True)
class Block:
    """Some rows of a tensor that are yet to be made."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    make: Callable[[Tensor], Any]
    """Fills the given tensor, in any thread; what it returns is told to who writes the file."""

    @property
    def bytes(self) -> int:
        """Its size in the file."""
        return prod(self.shape) * self.dtype.itemsize


def finished(content: bytes) -> Block:
    """A block that is there already."""

    def make(place: Tensor) -> None:
        place.copy_(torch.frombuffer(bytearray(content), dtype=torch.uint8))

    return Block((len(content),), torch.uint8, make)


class Sheet:
    """Part of a file in memory: from a page's begin, as the disk wants it."""

    def __init__(self, size: int) -> None:
        memory = mmap.mmap(-1, size)
        with suppress(AttributeError, OSError):  # the disk finds few large pages sooner than many
            memory.madvise(mmap.MADV_HUGEPAGE)
        self.memory = memoryview(memory)

    def begin(self, position: int) -> Sheet:
        """Hold what comes at that position of the file; what its page has before comes later."""
        self.first = self.end = position % PAGE
        self.making: list[Future[Any]] = []
        return self

    def has_room(self, block: Block) -> bool:
        """Whether a block fits behind those that are in it."""
        return self.end + block.bytes <= len(self.memory)

    def add(self, block: Block, makers: ThreadPoolExecutor) -> None:
        """Have a block made in its place."""
        place = self.memory[self.end : self.end + block.bytes]
        fits = len(place) > 0 and self.end % block.dtype.itemsize == 0
        self.making.append(makers.submit(_make if fits else _make_apart, block, place))
        self.end += block.bytes


def _make(block: Block, place: memoryview) -> Any:
    return block.make(torch.frombuffer(place, dtype=block.dtype).view(block.shape))


def _make_apart(block: Block, place: memoryview) -> Any:
    """For a place that is no place of a tensor."""
    values = torch.empty(block.shape, dtype=block.dtype)
    told = block.make(values)
    place[:] = content_of(values)
    return told
