"""Write a 16-bit model as a 4-bit one, in the folder layout that plain transformers loads.

One stored tensor is in memory at a time. Every size is known before the first weight is read: the
JSON of a weight's quantisation state is filled up with spaces, which also keeps tensors aligned.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any

import torch

from qtune import durable
from qtune.errors import ModelError, UsageError
from qtune.models import writing
from qtune.models.copies import FORMAT, settings_of
from qtune.models.files import resolve
from qtune.models.fingerprint import NOTE, fingerprint, of_files
from qtune.models.loading import Checkpoint
from qtune.models.model_folder import SHARD_BYTES, copy_companions, new_model
from qtune.models.names import check_shapes, match
from qtune.models.placing import owner_of, place
from qtune.models.prequantized import STATE
from qtune.models.skeleton import build, exchange, keeps_fp32, quantizable
from qtune.models.writing import TensorSpec
from qtune.ops.linears import linear_modules, output_head
from qtune.ops.nf4 import BLOCK_SIZE, NESTED_BLOCK_SIZE
from qtune.plan import read_config, stored_quantization

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from torch import Tensor

    from qtune.recipe.inputs import ModelSection, QuantizationSection

log = logging.getLogger(__name__)
STATE_BYTES = 256  # of a state's JSON, at least; what it says takes up to 190
CODES, NESTED_CODES = 16, 256
CPU = torch.device("cpu")


@dataclass
class Quantizing:
    """A quantisation that was checked as far as it can be without reading a weight."""

    folder: Path
    config: dict[str, Any]
    quantization: QuantizationSection
    network: Any
    checkpoint: Checkpoint
    stored: dict[str, str]
    """The model's name -> the checkpoint's."""
    names: list[str]
    """Layers to quantise."""
    fingerprint: str
    _ready: dict[str, Tensor] = field(default_factory=dict, init=False)

    @property
    def specs(self) -> list[TensorSpec]:
        """Every tensor of the copy, layer by layer; those of odd sizes last, to keep the rest
        aligned."""
        groups = [list(self._group(name)) for name in self.stored]
        return [
            spec
            for group in sorted(groups, key=lambda group: sum(s.bytes for s in group) % 8 != 0)
            for spec in group
        ]

    def tensor(self, spec: TensorSpec) -> Tensor:
        """A tensor of the copy; a weight's constants are asked for with it."""
        if spec.name not in self._ready:
            assert not self._ready, f"never written: {sorted(self._ready)}"
            self._ready = dict(self._read(spec.name))
        return self._ready.pop(spec.name)

    def _group(self, name: str) -> Iterator[TensorSpec]:
        """A tensor of the model as it will be stored: a weight with its constants, or itself."""
        origin = self.stored[name]
        shape = tuple(self.checkpoint.table[origin]["shape"])
        if name.removesuffix(".weight") not in self.names:
            yield TensorSpec(origin, shape, self._dtype(name))
            return
        double = self.quantization.double_quant
        packed, blocks = -(-prod(shape) // 2), -(-prod(shape) // BLOCK_SIZE)
        yield TensorSpec(f"{origin}.quant_map", (CODES,), torch.float32)
        if double:
            nested = -(-blocks // NESTED_BLOCK_SIZE)
            yield TensorSpec(f"{origin}.nested_absmax", (nested,), torch.float32)
            yield TensorSpec(f"{origin}.nested_quant_map", (NESTED_CODES,), torch.float32)
        odd = nested * 4 if double else 0
        yield TensorSpec(f"{origin}.absmax", (blocks,), torch.uint8 if double else torch.float32)
        yield TensorSpec(origin, (packed, 1), torch.uint8)
        odd += packed + blocks * (1 if double else 4)
        state = f"{origin}.{STATE}{self.quantization.quant_type}"
        yield TensorSpec(state, (STATE_BYTES + -odd % 8,), torch.uint8)

    def _dtype(self, name: str) -> torch.dtype:
        owner, leaf = owner_of(self.network, name)
        if leaf in owner._buffers:
            return owner._buffers[leaf].dtype  # type: ignore[no-any-return]
        kept = keeps_fp32(self.network, name)
        return torch.float32 if kept else owner._parameters[leaf].dtype

    def _read(self, first: str) -> Iterator[tuple[str, Tensor]]:
        """All tensors of the group that `first` begins, through the loader's own hands."""
        name = next(
            name for name, origin in self.stored.items() if first in (origin, f"{origin}.quant_map")
        )
        origin = self.stored[name]
        owner, leaf = owner_of(self.network, name)
        tensors = owner._buffers if leaf in owner._buffers else owner._parameters
        empty = tensors[leaf]
        place(self.network, name, self.checkpoint.read(origin), self.quantization, CPU)
        value = tensors[leaf]
        tensors[leaf] = empty
        yield origin, value.detach()
        if name.removesuffix(".weight") in self.names:
            owner.quant_state = None
            sizes = {spec.name: spec.bytes for spec in self._group(name)}
            for key, part in value.quant_state.as_dict(packed=True).items():
                stored = f"{origin}.{key}"
                yield stored, _filled(part, sizes[stored]) if key.startswith(STATE) else part


def prepare(model: ModelSection, quantization: QuantizationSection) -> Quantizing:
    """Read the headers of a model; `ModelError` or `UsageError` where no copy can be made."""
    folder = resolve(model)
    config = read_config(folder)
    if quantization.bits != 4:
        raise UsageError(
            f"copies are made in 4 bits, not {quantization.bits}", place="quantization.bits"
        )
    if stored_quantization(config) is not None:
        raise ModelError(
            "is quantised already", place=str(folder), hint="train on it as it is, without a copy"
        )
    checkpoint = Checkpoint(folder)
    checkpoint.packed(expected=False)
    network = build(folder, model, dtype=getattr(torch, quantization.compute_dtype))
    pairs = match(network, checkpoint.weights(checkpoint.packed(expected=False)))
    if pairs.fused:
        raise ModelError(
            f"{type(network).__name__} stores some weights in pieces that are fused when loaded",
            place=str(folder),
            hint="no copy can be made of it; qtune train quantises it each time",
        )
    check_shapes(network, pairs.names, checkpoint.dense_shapes(checkpoint.packed(expected=False)))
    names = quantizable(network, quantization)
    if not names:
        raise ModelError(f"no layer of this {network.config.model_type} can be quantised")
    exchange(network, names, quantization)
    origins = {target: name for name, target in pairs.names.items()}
    return Quantizing(
        folder=folder,
        config=config,
        quantization=quantization,
        network=network,
        checkpoint=checkpoint,
        stored={name: origins[name] for name in network.state_dict() if name in origins},
        names=names,
        fingerprint=fingerprint(folder),
    )


def write(
    work: Quantizing,
    target: Path,
    *,
    source: str,
    on_progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write the copy to the new folder `target`, whole or not at all; returns its bytes of weights.

    `source` is what the note calls the source: a hub id or a folder's own name.
    """
    specs = work.specs
    size = sum(spec.bytes for spec in specs)
    with new_model(target, size, "the copy") as draft:
        write_weights(work, draft, on_progress=on_progress)
        copy_companions(work.folder, draft)
        durable.write_json(draft / "config.json", config_of(work))
        durable.write_json(draft / NOTE, _note(work, draft, source))
    return size


def write_weights(
    work: Quantizing, folder: Path, *, on_progress: Callable[[int, int], None] | None = None
) -> None:
    """Write the weight files of the copy, and their index, into an empty folder."""
    files = writing.split(work.specs, max_bytes=SHARD_BYTES)
    writing.write(folder, files, work.tensor, on_progress=on_progress)


def _filled(state: Tensor, size: int) -> Tensor:
    """The JSON of a state with spaces behind it, which every reader of JSON passes over."""
    assert state.numel() <= size, f"{state.numel()} bytes of JSON, {size} kept for it"
    return torch.cat([state, state.new_full((size - state.numel(),), ord(" "))])


def config_of(work: Quantizing) -> dict[str, Any]:
    """The source's config.json with what transformers wants to know of the quantisation."""
    quantization = work.quantization
    head = output_head(work.network)
    leave = [name for name in linear_modules(work.network) if name not in set(work.names)]
    leave += [name for name, module in work.network.named_modules() if module is head]
    told = {key: value for key, value in work.config.items() if key != "torch_dtype"}
    return told | {
        "dtype": quantization.compute_dtype,
        "quantization_config": {
            "quant_method": "bitsandbytes",
            "load_in_4bit": True,
            "load_in_8bit": False,
            "bnb_4bit_quant_type": quantization.quant_type,
            "bnb_4bit_use_double_quant": quantization.double_quant,
            "bnb_4bit_compute_dtype": quantization.compute_dtype,
            "bnb_4bit_quant_storage": "uint8",
            "llm_int8_skip_modules": leave,
        },
    }


def _note(work: Quantizing, draft: Path, source: str) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "name": source,
        "source": work.fingerprint,
        "quantization": settings_of(work.quantization),
        "content": of_files(draft),
    }
