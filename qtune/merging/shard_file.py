"""One weight file: hashed, written and flushed to the disk while its next tensors are made."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from qtune.durable import BLOCK, flush, rename

if TYPE_CHECKING:
    from collections.abc import Iterable
    from io import FileIO
    from pathlib import Path

AHEAD = 3  # parts that wait for the disk
FLUSHED = 2**27  # bytes after which the disk is told to take what it was given
PART = ".part"


def write(path: Path, parts: Iterable[bytes | memoryview]) -> str:
    """Write a whole file under its name, or nothing there; its sha256.

    At most `AHEAD` parts are in memory beside the one that is being made.
    """
    draft = path.with_name(path.name + PART)
    digest = hashlib.sha256()
    with draft.open("wb", buffering=0) as stream:
        with ThreadPoolExecutor(1) as pen, ThreadPoolExecutor(1) as flusher:
            _Pipe(stream, pen, flusher, digest).push(parts)
        os.fsync(stream.fileno())
    rename(draft, path)
    flush(path.parent)
    return digest.hexdigest()


def sha256_of(path: Path) -> str:
    """What a file holds now."""
    digest = hashlib.sha256()
    content = bytearray(BLOCK)
    with path.open("rb", buffering=0) as stream:
        while count := stream.readinto(content):
            digest.update(memoryview(content)[:count])
    return digest.hexdigest()


class _Pipe:
    """Parts on their way from their maker through the hash to the disk."""

    def __init__(
        self,
        stream: FileIO,
        pen: ThreadPoolExecutor,
        flusher: ThreadPoolExecutor,
        digest: hashlib._Hash,
    ) -> None:
        self._stream = stream
        self._pen = pen
        self._flusher = flusher
        self._digest = digest
        self._flushing: Future[None] | None = None
        self._fresh = 0

    def push(self, parts: Iterable[bytes | memoryview]) -> None:
        """Send all parts; raises what any thread met."""
        waiting: deque[Future[None]] = deque()
        for part in parts:
            waiting.append(self._pen.submit(self._append, part))
            if len(waiting) > AHEAD:
                waiting.popleft().result()
        for each in waiting:
            each.result()
        if self._flushing is not None:
            self._flushing.result()

    def _append(self, part: bytes | memoryview) -> None:
        self._digest.update(part)
        rest = memoryview(part)
        while rest:
            rest = rest[self._stream.write(rest) :]
        self._fresh += len(part)
        if self._fresh >= FLUSHED and (self._flushing is None or self._flushing.done()):
            if self._flushing is not None:
                self._flushing.result()
            self._fresh = 0
            self._flushing = self._flusher.submit(os.fsync, self._stream.fileno())
