"""Encoded rows, stored flat: four bytes a token and one a mask bit, no object a row."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

IGNORED = -100


@dataclass(frozen=True, slots=True)
class EncodedRow:
    """One row as the model sees it; `labels` are the ids or -100, not shifted.

    `prompt_ids` is what to feed a model to generate the last answer, `answer` its reference text.
    """

    input_ids: list[int]
    labels: list[int]
    place: str
    prompt_ids: list[int] | None = None
    answer: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """A row on its way into the store."""

    file: str
    number: int
    ids: list[int]
    learnt: list[bool]
    prompt_length: int | None = None
    answer: str | None = None


class RowStore:
    """Grows by rows; what it holds never changes."""

    def __init__(self) -> None:
        self.ids = array("i")
        self.learnt = bytearray()
        self.starts = array("q", [0])
        self.stop_ids: set[int] = set()
        self._files: dict[str, int] = {}
        self._origins = array("q")
        self._prompts = array("q")
        self._answers = bytearray()
        self._answer_ends = array("q", [0])

    def __len__(self) -> int:
        return len(self.starts) - 1

    def add(self, row: Encoded) -> None:
        """Append one row."""
        self.ids.extend(row.ids)
        self.learnt.extend(row.learnt)
        self.starts.append(len(self.ids))
        self._origins.extend((self._files.setdefault(row.file, len(self._files)), row.number))
        self._prompts.append(-1 if row.prompt_length is None else row.prompt_length)
        self._answers += (row.answer or "").encode()
        self._answer_ends.append(len(self._answers))

    def row(self, number: int) -> EncodedRow:
        """One row as lists."""
        start, end = self.starts[number], self.starts[number + 1]
        ids = self.ids[start:end].tolist()
        learnt = self.learnt[start:end]
        labels = [token if on else IGNORED for token, on in zip(ids, learnt, strict=True)]
        file, line = self._origins[2 * number : 2 * number + 2]
        place = f"{list(self._files)[file]}:{line}"
        prompt = self._prompts[number]
        if prompt < 0:
            return EncodedRow(ids, labels, place)
        first, last = self._answer_ends[number : number + 2]
        return EncodedRow(ids, labels, place, ids[:prompt], self._answers[first:last].decode())


class Rows(Sequence[EncodedRow]):
    """A choice of rows of a store, in order; made into lists when looked at."""

    def __init__(self, store: RowStore, index: Sequence[int] | NDArray[np.int64]) -> None:
        self._store = store
        self._index: NDArray[np.int64] = np.asarray(index, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._index)

    @overload
    def __getitem__(self, number: int) -> EncodedRow: ...
    @overload
    def __getitem__(self, number: slice) -> Rows: ...
    def __getitem__(self, number: int | slice) -> EncodedRow | Rows:
        """A row, or the rows of a slice."""
        if isinstance(number, slice):
            return Rows(self._store, self._index[number])
        return self._store.row(int(self._index[number]))

    def take(self, numbers: Sequence[int]) -> Rows:
        """The rows with these numbers, in this order."""
        return Rows(self._store, self._index[np.asarray(numbers, dtype=np.int64)])

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each row."""
        starts = np.frombuffer(self._store.starts, dtype=np.int64)
        lengths: NDArray[np.int64] = np.diff(starts)[self._index]
        return lengths

    @property
    def supervised(self) -> NDArray[np.int64]:
        """Learnt tokens of each row."""
        learnt = np.frombuffer(self._store.learnt, dtype=np.uint8)
        total = np.concatenate([[0], np.cumsum(learnt, dtype=np.int64)])
        starts = np.frombuffer(self._store.starts, dtype=np.int64)
        counts: NDArray[np.int64] = np.diff(total[starts])[self._index]
        return counts

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """The ids that end an answer in these data: what generation should stop at."""
        return tuple(sorted(self._store.stop_ids))

    def digest(self, number: int) -> bytes:
        """A hash of one row's tokens and mask: equal rows have equal digests."""
        at = int(self._index[number])
        start, end = self._store.starts[at], self._store.starts[at + 1]
        hashed = hashlib.blake2b(self._store.ids[start:end].tobytes(), digest_size=16)
        hashed.update(self._store.learnt[start:end])
        return hashed.digest()

    @property
    def fingerprint(self) -> str:
        """SHA-256 over all rows in order: equal for equal rows, wherever they were read from."""
        hashed = hashlib.sha256()
        for number in range(len(self)):
            hashed.update(self.digest(number))
        return hashed.hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Counts of the rows."""
        lengths, supervised = self.lengths, self.supervised
        tokens = int(lengths.sum())
        return {
            "rows": len(self),
            "tokens": tokens,
            "supervised_tokens": int(supervised.sum()),
            "supervised_share": round(float(supervised.sum()) / tokens, 6) if tokens else 0.0,
            "longest": int(lengths.max()) if len(self) else 0,
        }
