"""Encoded rows as columns in files: written in blocks, read through memory maps."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import weakref
from array import array
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from qtune.durable import write_json
from qtune.errors import ResourceError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

DIGEST = 16
_BLOCK = 1 << 16
_DTYPES = {
    "ids": "i",
    "learnt": "B",
    "supervised": "i",
    "ends": "q",
    "origins": "q",
    "sources": "i",
    "groups": "Q",
    "prompts": "q",
    "answers": "B",
    "answer_ends": "q",
    "digests": "B",
    "images": "B",
    "image_ends": "q",
}
_META = "meta.json"


class Column:
    """Numbers of one type that are appended to a file; only the last block is in memory."""

    def __init__(self, path: Path, code: str) -> None:
        self._path = path
        self._block = array(code)
        self._dtype = np.dtype(code)
        self._mapped: NDArray[Any] | None = None
        self.length = path.stat().st_size // self._dtype.itemsize if path.exists() else 0

    def extend(self, values: Iterable[int]) -> None:
        """Append numbers."""
        before = len(self._block)
        self._block.extend(values)
        self.length += len(self._block) - before
        self._mapped = None
        if len(self._block) >= _BLOCK:
            self.flush()

    def flush(self) -> None:
        """Write what is still in memory."""
        if not self._block and self._path.exists():
            return
        try:
            with self._path.open("ab") as stream:
                stream.write(self._block.tobytes())
        except OSError as error:
            raise ResourceError(
                f"encoded rows cannot be written: {error.strerror}",
                place=str(self._path.parent),
                hint="name a folder with room in data.cache_dir",
            ) from None
        del self._block[:]

    @property
    def values(self) -> NDArray[Any]:
        """All numbers, mapped from the file."""
        if self._mapped is None:
            self.flush()
            empty = np.zeros(0, dtype=self._dtype)
            # a plain view: slices of a memmap object cost ten times as much
            mapped = np.memmap(self._path, self._dtype, "r") if self.length else empty
            self._mapped = mapped.view(np.ndarray)
        return self._mapped


class Columns:
    """The columns of a set of rows in one folder; without one, in a folder removed at the end."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or Path(tempfile.mkdtemp(prefix="qtune-rows-"))
        if folder is None:  # when the object is collected, or at exit
            weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        self._columns = {name: Column(self.folder / name, code) for name, code in _DTYPES.items()}
        self.files: dict[str, int] = {}
        self.stop_ids: set[int] = set()

    def __getitem__(self, name: str) -> NDArray[Any]:
        """The numbers of a column."""
        return self._columns[name].values

    def __len__(self) -> int:
        return self._columns["ends"].length

    def append(self, **values: Iterable[int]) -> None:
        """Append to some columns."""
        for name, numbers in values.items():
            self._columns[name].extend(numbers)

    def length(self, name: str) -> int:
        """How many numbers a column has."""
        return self._columns[name].length

    def span(self, ends: str, number: int) -> slice:
        """Where a row lies in a column of many numbers a row."""
        values = self._columns[ends].values
        return slice(int(values[number - 1]) if number else 0, int(values[number]))

    def finish(self, notes: dict[str, Any]) -> None:
        """Write all that is in memory, then what makes the folder complete, with `notes`.

        All columns are mapped then, so that they stay when the folder goes.
        """
        for column in self._columns.values():
            column.flush()
        for name in _DTYPES:
            self[name]
        sizes = {name: (self.folder / name).stat().st_size for name in _DTYPES}
        meta = {
            "sizes": sizes,
            "files": list(self.files),
            "stop_ids": sorted(self.stop_ids),
            "notes": notes,
        }
        write_json(self.folder / _META, meta)

    @classmethod
    def open(cls, folder: Path) -> tuple[Self, dict[str, Any]] | None:
        """The columns and notes of a complete folder; None when it is absent or damaged."""
        try:
            meta = json.loads((folder / _META).read_text())
            sizes = {name: (folder / name).stat().st_size for name in _DTYPES}
            if sizes != meta["sizes"]:
                return None
            columns = cls(folder)
            columns.files = {name: number for number, name in enumerate(meta["files"])}
            columns.stop_ids = set(meta["stop_ids"])
            for name in _DTYPES:
                columns[name]  # mapped now, so that they stay when the folder goes
            return columns, dict(meta["notes"])
        except (OSError, ValueError, KeyError, TypeError):
            return None


def digest_of(ids: array[int] | bytes, learnt: bytes) -> bytes:
    """A hash of one row's tokens and mask."""
    hashed = hashlib.blake2b(ids, digest_size=DIGEST)
    hashed.update(learnt)
    return hashed.digest()
