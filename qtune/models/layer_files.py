"""Layers of a checkpoint, read again and again from files that must stay as they are."""

from __future__ import annotations

import os
import time
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qtune.errors import ModelError, ResourceError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor


@dataclass(frozen=True)
class Piece:
    """One stored tensor of a layer: its bytes in a file, and their place in the layer's buffer."""

    file: Path
    start: int
    size: int
    place: int


@dataclass(frozen=True)
class _Open:
    """An open file, and what tells that nobody wrote to it since."""

    handle: int
    size: int
    written: int


class LayerFiles:
    """Fills flat buffers with layers.

    The files stay open, so that one which is replaced or removed is still read as it was; one that
    is written to is an error.
    """

    def __init__(self, layers: Sequence[Sequence[Piece]]) -> None:
        self.layers = layers
        self.seconds = 0.0
        """Time that reading took so far."""
        self._files: dict[Path, _Open] = {}
        for path in sorted({piece.file for layer in layers for piece in layer}):
            handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
            weakref.finalize(self, os.close, handle)
            stat = os.fstat(handle)
            self._files[path] = _Open(handle, stat.st_size, stat.st_mtime_ns)

    def bytes_of(self, layer: int) -> int:
        """Size of a layer's buffer."""
        return max((piece.place + piece.size for piece in self.layers[layer]), default=0)

    def read(self, layer: int, target: Tensor) -> None:
        """Fill `target`, uint8 in host memory; `ModelError` when a file is no longer as it was,
        `ResourceError` when the disk does not give it."""
        started = time.perf_counter()
        pieces = self.layers[layer]
        array: Any = target.numpy()
        with memoryview(array) as content:
            for piece in pieces:
                self._fill(piece, content[piece.place : piece.place + piece.size])
        # Asked after the bytes were read: a write in between shows.
        for path in {piece.file for piece in pieces}:
            self._check(path)
        self.seconds += time.perf_counter() - started

    def _fill(self, piece: Piece, content: memoryview) -> None:
        handle, done = self._files[piece.file].handle, 0
        while done < piece.size:
            try:
                count = os.preadv(handle, [content[done:]], piece.start + done)
            except OSError as error:
                raise ResourceError(
                    f"a layer of the base cannot be read: {error.strerror or error}",
                    place=str(piece.file),
                    hint="look at the disk; the run goes on with --resume",
                ) from error
            if not count:
                raise _changed(piece.file, "it was cut off")
            done += count

    def _check(self, path: Path) -> None:
        known = self._files[path]
        stat = os.fstat(known.handle)
        if (stat.st_size, stat.st_mtime_ns) != (known.size, known.written):
            raise _changed(path, "it was written to")


def _changed(path: Path, what: str) -> ModelError:
    return ModelError(
        f"the base's weights changed while they were in use: {what}",
        place=str(path),
        hint="leave the file alone while a run streams from it; quantise the model again",
    )
