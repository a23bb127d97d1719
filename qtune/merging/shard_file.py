"""One weight file: all cores make its blocks, a thread hashes them, another feeds the disk.

The blocks of a sheet are made in any order; sheets follow one another. The disk fetches whole pages
by itself where it can: their copy into the page cache would cost as much computing time as making
them does, and drive out what others keep there.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from io import FileIO
from typing import TYPE_CHECKING, Any

import torch

from qtune.durable import flush, rename
from qtune.merging.sheet import PAGE, Sheet

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from qtune.merging.sheet import Block

SHEET = 2**22  # bytes that are hashed and written at once; a larger block has a sheet of its own
MAKERS = 16  # at most; one thread cannot hash for more
PART = ".part"


def makers() -> int:
    """Threads that make blocks."""
    return min(torch.get_num_threads(), MAKERS)


def sheets() -> int:
    """Sheets that are in memory: those being made, one at the hash, one at the disk, one next."""
    return 4 + makers() // 4


def write(path: Path, blocks: Iterable[Block]) -> tuple[str, list[Any]]:
    """Write a whole file under its name, or nothing there; its sha256, and what its blocks told."""
    draft = path.with_name(path.name + PART)
    with FileIO(draft, "wb", opener=_past_the_page_cache) as stream:
        most = sheets()
        with _threads() as pools:
            press = _Press(stream, pools, most)
            told = press.run(blocks)
        os.fsync(stream.fileno())
    rename(draft, path)
    flush(path.parent)
    return press.sha256, told


def _past_the_page_cache(path: str, flags: int) -> int:
    """Opens a file for writes of whole pages that are not copied; as any other where the system or
    the file system cannot."""
    with suppress(AttributeError, OSError):
        return os.open(path, flags | os.O_DIRECT, 0o666)
    return os.open(path, flags, 0o666)


@contextmanager
def on_cores(count: int) -> Iterator[None]:
    """Have torch use so many cores in this thread, and in those that begin later."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _threads() -> Iterator[tuple[ThreadPoolExecutor, ...]]:
    """Makers, a hasher and a writer. None shares its work, this thread neither: to wait for a part
    of it that has no core took more time than all the work."""
    alone: Any = {"initializer": torch.set_num_threads, "initargs": (1,)}
    count = makers()
    with (
        on_cores(1),  # left last: what the makers set, later threads would begin with
        ThreadPoolExecutor(1) as writer,
        ThreadPoolExecutor(1) as hasher,
        ThreadPoolExecutor(count, **alone) as each,
    ):
        yield each, hasher, writer


class _Press:
    """Sheets on their way from their makers through the hash to the disk, and back."""

    def __init__(self, stream: FileIO, threads: tuple[ThreadPoolExecutor, ...], most: int) -> None:
        self._stream = stream
        self._makers, self._hasher, self._writer = threads
        self._most = most
        self._under_way: deque[Future[tuple[list[Any], Future[Sheet]]]] = deque()
        self._digest = hashlib.sha256()
        self._tail = b""
        self._told: list[Any] = []

    @property
    def sha256(self) -> str:
        """Of what was hashed so far."""
        return self._digest.hexdigest()

    def run(self, blocks: Iterable[Block]) -> list[Any]:
        """Write all blocks; what they told. Raises what any thread met."""
        position = 0
        sheet = Sheet(SHEET).begin(0)
        for block in blocks:
            if not sheet.has_room(block):
                self._under_way.append(self._hasher.submit(self._hash, sheet))
                sheet = self._next(block).begin(position)
            sheet.add(block, self._makers)
            position += block.bytes
        self._under_way.append(self._hasher.submit(self._hash, sheet))
        while self._under_way:
            sheet = self._come_back()
        self._end(sheet, position)
        return self._told

    def _next(self, block: Block) -> Sheet:
        """A sheet that is free and large enough; one for a large block comes after all others, as
        it may take most of the memory."""
        needed = PAGE + block.bytes
        if needed > SHEET:
            while self._under_way:
                self._come_back()
            return Sheet(needed)
        if len(self._under_way) < self._most:
            return Sheet(SHEET)
        sheet = self._come_back()
        return sheet if len(sheet.memory) == SHEET else Sheet(SHEET)

    def _come_back(self) -> Sheet:
        """The oldest sheet, when it is written."""
        told, writing = self._under_way.popleft().result()
        self._told += told
        return writing.result()

    def _hash(self, sheet: Sheet) -> tuple[list[Any], Future[Sheet]]:
        """Take a made sheet into the digest; its last page waits for the next sheet."""
        told = [each.result() for each in sheet.making]
        sheet.memory[: sheet.first] = self._tail
        self._digest.update(sheet.memory[sheet.first : sheet.end])
        whole = sheet.end - sheet.end % PAGE
        self._tail = bytes(sheet.memory[whole : sheet.end])
        return told, self._writer.submit(self._write, sheet, whole)

    def _write(self, sheet: Sheet, size: int) -> Sheet:
        rest = sheet.memory[:size]
        while rest:
            rest = rest[self._stream.write(rest) :]
        return sheet

    def _end(self, sheet: Sheet, size: int) -> None:
        """The last page, cut off where the file ends."""
        if self._tail:
            sheet.memory[:PAGE] = self._tail.ljust(PAGE, b"\0")
            self._write(sheet, PAGE)
            self._stream.truncate(size)
