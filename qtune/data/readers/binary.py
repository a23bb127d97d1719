"""What the readers of pyarrow's files share: opening, faults in one line, batches to rows."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO

from qtune.data.readers.opening import open_bytes, refuse_pointer
from qtune.data.row import Row
from qtune.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

_LOOK = 64
_ROWS = 1024


@contextmanager
def open_binary(path: Path, label: str, kind: str) -> Iterator[BinaryIO]:
    """The bytes of a file; what pyarrow finds wrong with them while it reads is a `DataError`."""
    import pyarrow as arrow  # type: ignore[import-untyped]  # it carries no types

    with open_bytes(path, label) as stream:
        first = stream.read(_LOOK)
        refuse_pointer(first, label)
        if not first:
            raise DataError("the file is empty", place=label)
        stream.seek(0)
        try:
            yield stream
        except (arrow.ArrowException, OSError, EOFError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            message = f"not a readable {kind} file: {reason}"
            raise DataError(message, place=label, hint="it may be cut: fetch it again") from None


def rows_of(batches: Iterable[Any], label: str) -> Iterator[Row]:
    """Rows as Python values, a few at a time however long a batch is; numbered from 1."""
    number = 0
    for batch in batches:
        for start in range(0, len(batch), _ROWS):
            for values in batch.slice(start, _ROWS).to_pylist():
                number += 1
                yield Row(label, number, values)
