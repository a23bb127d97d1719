"""The GGUF file of a whole model: its folder's tensors, streamed, beside what describes them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from qtune.errors import CheckError, ModelError
from qtune.gguf import architecture, vocabulary
from qtune.gguf.encoding import BLOCK, PLAIN, kind_of
from qtune.gguf.library import library
from qtune.gguf.names import TABLES, Names
from qtune.gguf.reading import DIVISORS
from qtune.gguf.writing import Stored, new_writer, write
from qtune.models.loading import Checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from torch import Tensor

    from qtune.gguf.architecture import Shape
    from qtune.gguf.encoding import Dtype
    from qtune.gguf.reading import File
    from qtune.gguf.vocabulary import Vocabulary

FILE_TYPES = {"f32": "ALL_F32", "f16": "MOSTLY_F16", "bf16": "MOSTLY_BF16", "q8_0": "MOSTLY_Q8_0"}
STORED = {torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16"}


@dataclass(frozen=True)
class Source:
    """A dense model folder, looked through before a weight is read."""

    checkpoint: Checkpoint
    shape: Shape
    names: Names
    dtype: Dtype

    def stored(self) -> list[Stored]:
        """All tensors of the file, in the order of the folder's files."""
        found = [self._stored(name) for name in self.weights()]
        if self.shape.rope.divisors:
            divisors = torch.tensor(self.shape.rope.divisors, dtype=torch.float32)
            found.append(Stored(DIVISORS, tuple(divisors.shape), "f32", lambda: divisors))
        return found

    def weights(self) -> list[str]:
        """The folder's tensors that belong into the file: a tied head is the embedding again."""
        ordered = self.checkpoint.in_order(self.checkpoint.index)
        listed = [name for _, names in ordered for name in names]
        tied = "lm_head.weight" if self.shape.tied else ""
        return [name for name in listed if name != tied and not TABLES.search(name)]

    def tensor(self, name: str) -> Tensor:
        """One tensor as the folder stores it, its rows in llama.cpp's order."""
        return self.names.reorder(name, self.checkpoint.read(name))

    def _stored(self, name: str) -> Stored:
        shape = tuple(self.checkpoint.table[name]["shape"])
        kind = kind_of(shape, self.dtype)
        return Stored(self.names.to_gguf(name), shape, kind, partial(self.tensor, name))


def look_through(folder: Path, *, dtype: Dtype | None, place: str) -> Source:
    """The source of a dense model folder; without a dtype that of its embedding; `ModelError`."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    if getattr(config, "quantization_config", None) is not None:
        raise ModelError(
            "the model is stored quantised", place=place, hint="merge it into a dense one first"
        )
    named = str((config.architectures or ["?"])[0])
    if not named.endswith("ForCausalLM"):
        raise ModelError(f"{named} is no language model, of which a GGUF is written", place=place)
    shape = architecture.shape_of(config, place=place)
    checkpoint = Checkpoint(folder)
    if dtype is None:
        embedding = "model.embed_tokens.weight"
        if embedding not in checkpoint.table:
            raise ModelError(f"no {embedding}", place=place)
        dtype = _stored_as(checkpoint.table[embedding]["dtype"])
    return Source(checkpoint, shape, Names(shape), dtype)


def _stored_as(name: str) -> Dtype:
    from qtune.models.shards import DTYPES

    found: Any = STORED.get(DTYPES[name], "f32")
    return found  # type: ignore[no-any-return]


def write_model(
    source: Source,
    words: Vocabulary,
    path: Path,
    *,
    about: Mapping[str, str],
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Stored]:
    """Write the new file `path`; `about`: general.name and others of general's text fields."""
    tensors = source.stored()
    with new_writer(source.shape.architecture.name) as writer:
        general(writer, about, kind="model", dtype=source.dtype)
        count = sum(_numbers(tensor) for tensor in tensors)
        writer.add_size_label(library().size_label(count, 0, 0, 0))
        architecture.describe(writer, source.shape)
        vocabulary.describe(writer, words)
        write(writer, path, tensors, on_progress=on_progress)
    return tensors


def general(writer: Any, about: Mapping[str, str], *, kind: str, dtype: Dtype) -> None:
    """The fields that any file has, and those of `about` that are known."""
    gguf = library()
    writer.add_type(kind)
    writer.add_file_type(gguf.LlamaFileType[FILE_TYPES[dtype]])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    for key in ("name", "license", "description"):
        if about.get(key):
            getattr(writer, f"add_{key}")(about[key])
    if about.get("base"):
        writer.add_base_model_count(1)
        writer.add_base_model_name(0, about["base"])
    if about.get("base_url"):
        writer.add_base_model_repo_url(0, about["base_url"])
    writer.add_tags(["qtune", "qlora"])


def compare_tensors(
    source: Source, file: File, on_progress: Callable[[int, int], None] | None = None
) -> float:
    """Read every tensor back and hold it against the folder's, one at a time; the largest error in
    q8_0, as a share of what it may be. `CheckError` unless each is what its format can hold."""
    names = source.weights()
    worst = 0.0
    for number, name in enumerate(names):
        tensor = source.tensor(name)
        kind = kind_of(tensor.shape, source.dtype)
        for rows, found in file.pieces(source.names.to_gguf(name)):
            wanted = tensor[rows].float()
            share = _share(wanted, found) if kind == "q8_0" else _unequal(wanted, found, kind)
            if share > ALLOWED:
                raise CheckError(f"{name} is another one in the file", place=str(file.path))
            worst = max(worst, share)
        if on_progress is not None:
            on_progress(number + 1, len(names))
    return worst


ALLOWED = 1.001


def _unequal(tensor: Tensor, found: Tensor, kind: Dtype) -> float:
    """0 where a piece is its tensor, rounded once to the format; else infinity."""
    equal = torch.equal(found, tensor.to(PLAIN[kind]).float())
    return 0.0 if equal else math.inf


def _share(tensor: Tensor, found: Tensor) -> float:
    """The largest error, as a share of what a block's step and its scale in f16 allow."""
    blocks = tensor.reshape(-1, BLOCK)
    step = blocks.abs().amax(dim=1, keepdim=True) / 127
    allowed = step / 2 + 127.5 * (step * 2**-11).clamp_min(2**-25)
    return float(((found.reshape(-1, BLOCK) - blocks).abs() / allowed).max())


def _numbers(tensor: Stored) -> int:
    count = 1
    for size in tensor.shape:
        count *= size
    return count
