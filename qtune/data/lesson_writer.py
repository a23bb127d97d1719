"""Lessons on their way to the disk: a part is whole or absent, and a stopped teacher goes on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from safetensors.numpy import save

from qtune import durable
from qtune.data.lessons import Part, checksum, digest_of_row
from qtune.errors import OutputError, ResumeError
from qtune.recipe.lessons import NOTES, VERSION, read_notes

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from qtune.data.rows import EncodedRow

PART_BYTES = 1 << 26
NARROW = 1 << 16  # ids below it take two bytes


@dataclass
class LessonWriter:
    """Grows by rows, in one order; `facts` are what all of them have in common."""

    folder: Path
    facts: dict[str, Any]
    done: int = 0
    """Rows that are on the disk."""
    _names: list[str] = field(default_factory=list)
    _waiting: list[tuple[bytes, NDArray[Any], NDArray[Any]]] = field(default_factory=list)
    _bytes: int = 0

    @classmethod
    def open(cls, folder: Path, facts: dict[str, Any]) -> Self:
        """A new folder, or one that was begun alike; `OutputError` where it holds something else,
        `ResumeError` where another teacher or other rows were begun."""
        if not (folder / NOTES).exists():
            if folder.exists() and any(folder.iterdir()):
                raise OutputError(
                    "holds something else", place=str(folder), hint="name another folder with -o"
                )
            durable.require_writable(folder)
            folder.mkdir(parents=True, exist_ok=True)
            made = cls(folder, facts)
            made._write_notes(complete=False)
            return made
        notes = read_notes(folder)
        if notes["complete"]:
            raise OutputError(
                "holds whole lessons already", place=str(folder), hint="name another with -o"
            )
        _refuse_others(notes, facts, folder)
        durable.sweep(folder)
        names = sorted(path.name for path in folder.glob("part-*.safetensors"))
        done = sum(len(Part(folder / name).digests) for name in names)
        return cls(folder, facts, done, names)

    def add(self, row: EncodedRow, ids: NDArray[Any], logs: NDArray[Any]) -> None:
        """Ids [S, K] and log-probabilities [S, K + 1] of a row's learnt places."""
        narrow = np.uint16 if self.facts["width"] <= NARROW else np.int32
        one = (digest_of_row(row), ids.astype(narrow), logs.astype(self.facts["dtype"]))
        self._waiting.append(one)
        self._bytes += one[1].nbytes + one[2].nbytes

    def pause(self, *, last: bool = False) -> None:
        """Between two batches, where one may be stopped: write what is enough for a part."""
        if not self._waiting or (self._bytes < PART_BYTES and not last):
            return
        digests, ids, logs = zip(*self._waiting, strict=True)
        tensors = {
            "digests": np.frombuffer(b"".join(digests), dtype=np.uint8),
            "ends": np.cumsum([len(each) for each in ids], dtype=np.int64),
            "ids": np.concatenate(ids),
            "logs": np.concatenate(logs),
        }
        name = f"part-{len(self._names):05}.safetensors"
        try:
            durable.write_bytes(self.folder / name, save(tensors))
        except OSError as error:
            raise durable.no_room(
                "lessons", error, place=self.folder, needed=self._bytes
            ) from error
        self._names.append(name)
        self.done += len(self._waiting)
        self._waiting, self._bytes = [], 0

    def finish(self) -> dict[str, Any]:
        """Write the rest, then what makes the folder whole; returns the notes."""
        self.pause(last=True)
        return self._write_notes(complete=True)

    def _write_notes(self, *, complete: bool) -> dict[str, Any]:
        parts = {name: checksum(self.folder / name) for name in self._names if complete}
        notes = {"version": VERSION, "complete": complete, **self.facts, "parts": parts}
        durable.write_json(self.folder / NOTES, notes)
        return notes


def _refuse_others(notes: dict[str, Any], facts: dict[str, Any], folder: Path) -> None:
    """The name of a teacher may be another one, what it holds may not."""
    before = {key: notes.get(key) for key in facts} | {"teacher": notes["teacher"]["fingerprint"]}
    now = facts | {"teacher": facts["teacher"]["fingerprint"]}
    other = [key for key in now if before[key] != now[key]]
    if other:
        raise ResumeError(
            f"was begun with another {', '.join(other)}",
            place=str(folder),
            hint="undo that, or name another folder with -o",
        )
