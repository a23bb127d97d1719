"""A GGUF file, written tensor by tensor: one of them is in memory at a time."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qtune.durable import flush
from qtune.gguf.encoding import byte_count, constant, encode
from qtune.gguf.library import library

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from torch import Tensor

    from qtune.gguf.encoding import Dtype


@dataclass(frozen=True)
class Stored:
    """A tensor of the file before it is read: its name, its shape as numpy has it, its format."""

    name: str
    shape: tuple[int, ...]
    kind: Dtype
    produce: Callable[[], Tensor]

    @property
    def bytes(self) -> int:
        """Its size in the file, without padding."""
        return byte_count(self.shape, self.kind)


@contextmanager
def new_writer(architecture: str) -> Iterator[Any]:
    """A `GGUFWriter` to put fields in, closed at the end; its log lines are kept back."""
    with quietly():
        writer = library().GGUFWriter(None, architecture)
        try:
            yield writer
        finally:
            writer.close()


def write(
    writer: Any,
    path: Path,
    tensors: Sequence[Stored],
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write the new file `path`, which is on the disk afterwards; progress in bytes."""
    import numpy as np

    for tensor in tensors:
        # the shape in numbers; gguf would take that of bytes for quantised ones
        writer.add_tensor_info(
            tensor.name,
            tensor.shape,
            np.dtype(np.float32),
            tensor.bytes,
            raw_dtype=constant(tensor.kind),
        )
    writer.write_header_to_file(path)
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    total, done = sum(tensor.bytes for tensor in tensors), 0
    for tensor in tensors:
        found = tensor.produce()
        assert tuple(found.shape) == tensor.shape, f"{tensor.name}: {tuple(found.shape)}"
        writer.write_tensor_data(encode(tensor.name, found, tensor.kind))
        done += tensor.bytes
        if on_progress is not None:
            on_progress(done, total)
    writer.flush()
    flush(path)


@contextmanager
def quietly() -> Iterator[None]:
    """gguf's news of its own work are held back; warnings are not."""
    log = logging.getLogger("gguf")
    before = log.level
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.setLevel(before)
