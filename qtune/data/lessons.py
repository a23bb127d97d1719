"""What a teacher wrote of rows: the most likely next tokens of each learnt place, on disk.

A row is found by the hash of its tokens and mask, so that a row that changed in any way has none.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from qtune.data.rows import IGNORED, EncodedRow
from qtune.data.store import DIGEST, digest_of
from qtune.data.wrapped import Wrapped
from qtune.durable import sha256_of
from qtune.errors import DataError, Fault, ModelError
from qtune.recipe.lessons import NOTES, read_notes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from qtune.data.batch import Batch
    from qtune.data.rows import Rows

MOST_TOLD = 5
AGAIN = "write them again with qtune data teach"


class Part:
    """One file of lessons: rows one behind the other; read through a memory map."""

    def __init__(self, path: Path) -> None:
        try:
            opened: Any = safe_open(path, framework="numpy")
            digests = opened.get_tensor("digests").tobytes()
            self.ends: list[int] = opened.get_tensor("ends").tolist()
            self._ids, self._logs = (opened.get_slice(name) for name in ("ids", "logs"))
        except (OSError, SafetensorError) as error:
            raise ModelError(f"cannot be read: {error}", place=str(path), hint=AGAIN) from error
        places = range(0, len(digests), DIGEST)
        self.digests = [digests[place : place + DIGEST] for place in places]

    def row(self, number: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Ids [S, K] and log-probabilities [S, K + 1] of one row's learnt places."""
        start = self.ends[number - 1] if number else 0
        end = self.ends[number]
        return self._ids[start:end].astype(np.int32), self._logs[start:end]


@dataclass(frozen=True)
class Lessons:
    """A whole folder of them."""

    folder: Path
    notes: dict[str, Any]
    parts: tuple[Part, ...]
    places: dict[bytes, tuple[int, int]]
    """Hash of a row -> part and number in it."""

    @classmethod
    def open(cls, folder: Path, *, on_progress: Callable[[int, int], None] | None = None) -> Self:
        """Read and check every file; `ModelError` where one is missing, or not what was written."""
        notes = read_notes(folder)
        if not notes["complete"]:
            raise ModelError(
                "is not whole: its teacher was stopped",
                place=str(folder / NOTES),
                hint="the same qtune data teach goes on with it",
            )
        for number, (name, known) in enumerate(notes["parts"].items()):
            if on_progress is not None:
                on_progress(number, len(notes["parts"]))
            if checksum(folder / name) != known:
                raise ModelError("is not what was written", place=str(folder / name), hint=AGAIN)
        parts = tuple(Part(folder / name) for name in notes["parts"])
        places = {
            digest: (number, row)
            for number, part in enumerate(parts)
            for row, digest in enumerate(part.digests)
        }
        return cls(folder, notes, parts, places)

    def check(self, rows: Rows) -> None:
        """`DataError` unless there is a lesson of each row: the first few without one are told."""
        lost = [n for n, digest in enumerate(digests_of(rows)) if digest not in self.places]
        if not lost:
            return
        faults = [
            Fault(message="the teacher has not seen this row", place=rows[n].place)
            for n in lost[:MOST_TOLD]
        ]
        hint = (
            f"{len(lost):,} of {len(rows):,} rows, their tokenizer, template or what is learnt of "
            f"them changed since {self.folder.name} was written; {AGAIN}"
        )
        raise DataError.of([*faults[:-1], replace(faults[-1], hint=hint)])

    def of(self, row: EncodedRow) -> tuple[NDArray[Any], NDArray[Any]]:
        """Ids [S, K] and log-probabilities [S, K + 1] of a row's learnt places."""
        part, number = self.places[digest_of_row(row)]
        return self.parts[part].row(number)


@dataclass(frozen=True)
class Taught(Wrapped):
    """A layout whose batches have what the teacher wrote of their rows."""

    lessons: Lessons

    def batch(self, rows: Sequence[EncodedRow], sequences: Sequence[Sequence[int]]) -> Batch:
        """The tensors of one micro-batch."""
        counter = iter(range(sum(map(len, sequences))))
        renumbered = [[next(counter) for _ in sequence] for sequence in sequences]
        chosen = [rows[number] for sequence in sequences for number in sequence]
        batch = self.layout.batch(chosen, renumbered)
        order = batch.order or range(len(chosen))
        by_row = [self.lessons.of(chosen[number]) for number in order]
        ids, logs = (torch.from_numpy(np.concatenate(each)) for each in zip(*by_row, strict=True))
        return replace(batch, taught=(ids, logs))


def checksum(path: Path) -> str:
    """sha256 of a file; `ModelError` where it cannot be read."""
    try:
        return sha256_of(path)
    except OSError as error:
        message = f"cannot be read: {error.strerror}"
        raise ModelError(message, place=str(path), hint=AGAIN) from error


def digests_of(rows: Rows) -> Iterator[bytes]:
    """The hash of each row's tokens and mask."""
    hashed = rows.digests.astype(">u8").tobytes()
    for place in range(0, len(hashed), DIGEST):
        yield hashed[place : place + DIGEST]


def digest_of_row(row: EncodedRow) -> bytes:
    """The same of a row as lists."""
    learnt = bytes(label != IGNORED for label in row.labels)
    return digest_of(array("i", row.input_ids).tobytes(), learnt)
