"""A GGUF file read back: its fields, its tensors under transformers' names, the model it makes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from qtune.errors import CheckError
from qtune.gguf.architecture import config_of, shape_of
from qtune.gguf.encoding import CHUNK, decode
from qtune.gguf.library import library
from qtune.gguf.names import Names

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import Tensor

DIVISORS = "rope_freqs.weight"


class File:
    """An open GGUF file; its tensors are read from the disk when they are asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        reader = library().GGUFReader(path)
        self.fields: dict[str, Any] = {
            name: field.contents() for name, field in reader.fields.items()
        }
        self._tensors = {tensor.name: tensor for tensor in reader.tensors}

    @property
    def names(self) -> set[str]:
        """The names of all tensors, as GGUF has them."""
        return set(self._tensors)

    def tensor_kind(self, name: str) -> Any:
        """The number format of one tensor, such as f16."""
        return self._tensors[name].tensor_type.name.lower()

    def tensor(self, name: str) -> Tensor:
        """One tensor in fp32, its rows in the file's order."""
        parts = [part for _, part in self.pieces(name)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def pieces(self, name: str) -> Iterator[tuple[slice, Tensor]]:
        """(rows, tensor in fp32) of one tensor, some rows at a time; a vector in one piece.

        The file is read and not mapped: its pages would count as resident.
        """
        import numpy as np

        found = self._tensors[name]
        shape = tuple(reversed(found.shape.tolist()))
        rows = shape[0] if len(shape) > 1 else 1
        size, step = int(found.n_bytes) // rows, max(1, CHUNK * rows // int(found.n_elements))
        with self.path.open("rb") as stream:
            stream.seek(int(found.data_offset))
            for start in range(0, rows, step):
                stop = min(start + step, rows)
                content = np.frombuffer(stream.read(size * (stop - start)), found.data.dtype)
                part = (stop - start, *shape[1:]) if len(shape) > 1 else shape
                stored = content.reshape(*part[:-1], -1)
                whole = slice(None) if len(shape) < 2 else slice(start, stop)
                yield whole, decode(stored, self.tensor_kind(name), part)


def model_of(file: File) -> Any:
    """The transformers model in fp32 that a file describes, from the file alone; `CheckError` when
    tensors are left over or missing."""
    from transformers import AutoModelForCausalLM

    config = config_of(file.fields, file.names, place=file.path)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    names = Names(shape_of(config, place=str(file.path)))
    parameters = dict(model.named_parameters())
    wanted = {names.to_gguf(name): name for name in parameters}
    odd = wanted.keys() ^ (file.names - {DIVISORS})
    if odd:
        raise CheckError(f"the file and its architecture differ in {', '.join(sorted(odd)[:3])}")
    state = {own: names.restore(own, file.tensor(theirs)) for theirs, own in wanted.items()}
    with torch.device("cpu"):
        model.model.rotary_emb = type(model.model.rotary_emb)(config)
    model.load_state_dict(state, strict=False, assign=True)
    model.tie_weights()
    if DIVISORS in file.names:
        model.model.rotary_emb.inv_freq.div_(file.tensor(DIVISORS))
    return model.eval()
