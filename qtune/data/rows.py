"""Encoded rows as people and batches see them, on top of flat columns: no object a row."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, chain, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from qtune.data.row import place_of
from qtune.data.store import DIGEST, Columns, digest_of
from qtune.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qtune.data.pictures import Pictures

IGNORED = -100
_PART = "\0"  # stands in no name of a file


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
    image: str | None = None
    """The file of the image that the row is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """A row on its way into the store."""

    file: str
    number: int
    ids: list[int]
    learnt: list[bool]
    prompt_length: int | None = None
    answer: str | None = None
    group: str = ""
    part: str = ""
    image: str = ""

    @property
    def place(self) -> str:
        """`train.jsonl:12`, the place that every message names."""
        return place_of(self.file, self.number, Path(self.image).name) + (
            f" ({self.part})" if self.part else ""
        )

    @property
    def origin(self) -> str:
        """The file, and which example of its row this is where there are several."""
        return f"{self.file}{_PART}{self.part}" if self.part else self.file


@dataclass(frozen=True, slots=True)
class Block:
    """Encoded rows in flat arrays, which are quick to store and to send to another process."""

    ids: array[int]
    learnt: array[int]
    supervised: array[int]
    lengths: list[int]
    files: list[str]
    file_numbers: list[int]
    """For each row its place among `files`."""
    numbers: list[int]
    groups: array[int]
    prompts: array[int]
    answers: array[int]
    answer_lengths: list[int]
    digests: array[int]
    images: array[int]
    image_lengths: list[int]
    """Of the names of files among `images`, one a row; none of rows of text."""

    @classmethod
    def of(cls, rows: Sequence[Encoded]) -> Block:
        """Some rows as a block."""
        ids = [array("i", row.ids) for row in rows]
        learnt = [bytes(row.learnt) for row in rows]
        answers = [(row.answer or "").encode() for row in rows]
        lengths = [row.prompt_length for row in rows]
        files = {name: number for number, name in enumerate(dict.fromkeys(r.origin for r in rows))}
        digests = map(digest_of, ids, learnt)
        images = [row.image.encode() for row in rows if row.image]
        return cls(
            ids=array("i", b"".join(ids)),
            learnt=array("B", b"".join(learnt)),
            supervised=array("i", [mask.count(1) for mask in learnt]),
            lengths=[len(own) for own in ids],
            files=list(files),
            file_numbers=[files[row.origin] for row in rows],
            numbers=[row.number for row in rows],
            groups=array("Q", [_group(row.group) for row in rows]),
            prompts=array("q", [-1 if length is None else length for length in lengths]),
            answers=array("B", b"".join(answers)),
            answer_lengths=[len(answer) for answer in answers],
            digests=array("B", b"".join(digests)),
            images=array("B", b"".join(images)),
            image_lengths=[len(name) for name in images],
        )


class RowStore:
    """Grows by rows; what it holds never changes."""

    def __init__(self, columns: Columns | None = None) -> None:
        self.columns = Columns() if columns is None else columns

    def __len__(self) -> int:
        return len(self.columns)

    @property
    def stop_ids(self) -> set[int]:
        """The ids that end an answer; may be added to."""
        return self.columns.stop_ids

    def add(self, row: Encoded, *, source: int = 0) -> None:
        """Append one row."""
        self.append(Block.of([row]), source=source)

    def append(self, block: Block, *, source: int) -> None:
        """Append the rows of a block, which come from one source."""
        columns = self.columns
        known = [columns.files.setdefault(name, len(columns.files)) for name in block.files]
        origins = zip([known[file] for file in block.file_numbers], block.numbers, strict=True)
        columns.append(
            ends=_ends(columns.length("ids"), block.lengths),
            ids=block.ids,
            learnt=block.learnt,
            supervised=block.supervised,
            origins=chain.from_iterable(origins),
            sources=repeat(source, len(block.lengths)),
            groups=block.groups,
            prompts=block.prompts,
            answer_ends=_ends(columns.length("answers"), block.answer_lengths),
            answers=block.answers,
            digests=block.digests,
            images=block.images,
            image_ends=_ends(columns.length("images"), block.image_lengths),
        )

    def row(self, number: int) -> EncodedRow:
        """One row as lists; `DataError` if it is no longer what was stored."""
        number = range(len(self))[number]
        columns = self.columns
        span = columns.span("ends", number)
        ids_S, learnt_S = columns["ids"][span], columns["learnt"][span]
        stored = columns["digests"][DIGEST * number : DIGEST * (number + 1)]
        if digest_of(ids_S.tobytes(), learnt_S.tobytes()) != stored.tobytes():
            raise DataError(
                f"the encoded row {number + 1} is not what was stored: the disk has changed it",
                place=str(columns.folder),
                hint="remove this folder of the cache and go on with --resume",
            )
        ids, learnt = ids_S.tolist(), learnt_S.tolist()
        labels = [token if on else IGNORED for token, on in zip(ids, learnt, strict=True)]
        file, line = columns["origins"][2 * number : 2 * number + 2].tolist()
        name, _, part = list(columns.files)[file].partition(_PART)
        image = self._image(number)
        place = place_of(name, line, Path(image or "").name) + (f" ({part})" if part else "")
        prompt = int(columns["prompts"][number])
        if prompt < 0:
            return EncodedRow(ids, labels, place)
        answer = columns["answers"][columns.span("answer_ends", number)].tobytes()
        return EncodedRow(ids, labels, place, ids[:prompt], answer.decode(), image)

    def _image(self, number: int) -> str | None:
        """The file of a row's image."""
        if not self.columns.length("image_ends"):
            return None
        return str(
            self.columns["images"][self.columns.span("image_ends", number)].tobytes(), "utf-8"
        )

    @property
    def starts(self) -> NDArray[np.int64]:
        """Where each row begins among the tokens, and the end of the last."""
        return np.concatenate([np.zeros(1, dtype=np.int64), self.columns["ends"]])


def _ends(start: int, lengths: Sequence[int]) -> list[int]:
    """Where parts of some lengths end in a column that had `start` numbers before."""
    return list(accumulate(lengths, initial=start))[1:]


@lru_cache(maxsize=1024)
def _group(value: str) -> int:
    return int.from_bytes(hashlib.blake2b(value.encode(), digest_size=8).digest(), "big")


class Rows(Sequence[EncodedRow]):
    """A choice of rows of a store, in order; made into lists when looked at."""

    def __init__(
        self,
        store: RowStore,
        index: Sequence[int] | NDArray[np.int64],
        pictures: Pictures | None = None,
    ) -> None:
        self._store = store
        self.pictures = pictures
        """How the images that rows are become pixels; None of rows of text."""
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
            return Rows(self._store, self._index[number], self.pictures)
        return self._store.row(int(self._index[number]))

    def take(self, numbers: Sequence[int] | NDArray[np.int64]) -> Rows:
        """The rows with these numbers, in this order."""
        chosen = self._index[np.asarray(numbers, dtype=np.int64)]
        return Rows(self._store, chosen, self.pictures)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each row."""
        starts = self._store.starts
        lengths: NDArray[np.int64] = np.diff(starts)[self._index]
        return lengths

    @property
    def supervised(self) -> NDArray[np.int64]:
        """Learnt tokens of each row."""
        counts: NDArray[np.int32] = self._store.columns["supervised"]
        return counts[self._index].astype(np.int64)

    @property
    def sources(self) -> NDArray[np.int32]:
        """The number of each row's source in the recipe."""
        sources: NDArray[np.int32] = self._store.columns["sources"]
        return sources[self._index]

    @property
    def groups(self) -> NDArray[np.uint64]:
        """A hash of each row's value of data.split_by."""
        groups: NDArray[np.uint64] = self._store.columns["groups"]
        return groups[self._index]

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """The ids that end an answer in these data: what generation should stop at."""
        return tuple(sorted(self._store.stop_ids))

    @property
    def digests(self) -> NDArray[np.uint64]:
        """A hash of each row's tokens and mask as two numbers [N, 2]: equal rows have equal ones.

        Big-endian, so that they are ordered as the bytes of the hash are.
        """
        words: NDArray[np.uint64] = self._store.columns["digests"].view(">u8").reshape(-1, 2)
        return words[self._index]

    @property
    def fingerprint(self) -> str:
        """SHA-256 over all rows in order: equal for equal rows, wherever they were read from."""
        return hashlib.sha256(self.digests.tobytes()).hexdigest()

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
