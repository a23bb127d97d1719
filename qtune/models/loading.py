"""Load a base model tensor by tensor: checked by name and shape first, then read, cast, quantised.

Host memory stays within one stored tensor of the quantised size: one is in memory at a time, it is
quantised in pieces, and what needs no cast is kept without a copy.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from qtune.errors import ModelError, UsageError
from qtune.models import activations as activation_policies
from qtune.models import copies
from qtune.models.base import Base, inventory
from qtune.models.conversion import count_quantised, load_converted
from qtune.models.files import SMALL, WANTED, resolve, shard_index
from qtune.models.filling import Filled, Filler
from qtune.models.fingerprint import fingerprint
from qtune.models.names import Match, check_shapes, match
from qtune.models.own_product import ask_where_misread
from qtune.models.preparation import freeze
from qtune.models.prequantized import Packed, check_config, check_constants, find
from qtune.models.sharding import WHOLE, refuse
from qtune.models.shards import read_bytes, read_from, read_rows, read_tensors, tensor_table
from qtune.models.skeleton import build, exchange, quantizable, skipped
from qtune.models.streaming import layers_of
from qtune.plan import read_config, stored_quantization
from qtune.ranks import ALONE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from qtune.models.sharding import Spread
    from qtune.recipe.inputs import ModelSection, QuantizationSection
    from qtune.recipe.steps import ActivationPolicy
    from qtune.recipe.steps import Base as Placement

log = logging.getLogger(__name__)


def load(
    model: ModelSection,
    quantization: QuantizationSection,
    *,
    device: torch.device,
    activations: ActivationPolicy,
    base: Placement = "resident",
    on_progress: Callable[[int, int], None] | None = None,
    spread: Spread = WHOLE,
) -> Base:
    """The frozen base of a recipe, in train mode; `on_progress(done, total)` counts tensors.

    `stream` takes a checkpoint that is stored in 4 bits, or has such a copy. The processes of a
    `spread` call this together: the first one reads, the others are sent what it has placed.
    """
    if device.type == "cpu":
        device = torch.device("cpu")  # to a numbered one everything is copied, from views too
    refuse(spread, bits=quantization.bits, streamed=base == "stream")
    ranks = ALONE if base == "stream" else spread.ranks  # what streams is read by each for itself
    with spread.ranks.one_before_the_rest():
        folder = resolve(model, patterns=WANTED if ranks.first else SMALL)
    source, copy = ranks.of_first(lambda: _origin(folder, quantization))
    network = build(folder, model, dtype=getattr(torch, quantization.compute_dtype))
    reader = Reader.of(copy or folder, network, model, quantization) if ranks.first else None
    pairs, names = ranks.of_first(lambda: _found(reader))
    filled = Filled()
    if pairs.fused:
        refuse(spread, bits=quantization.bits, converted=True)
        with spread.ranks.one_before_the_rest():
            folder = resolve(model)
        network = load_converted(folder, quantization, skeleton=network, names=names, device=device)
        if on_progress is not None:
            on_progress(1, 1)
    else:
        exchange(network, names, quantization)
        filler = Filler(network, reader, pairs, quantization, device, spread)
        filled = filler.fill(ranks, streams=base == "stream", on_progress=on_progress)
    _audit(network, expected=len(names), bits=quantization.bits)
    ask_where_misread(network, device)
    freeze(network)
    _adopt_generation_config(network, folder)
    activation_policies.use(network, activations)
    counted = inventory(network)
    return Base(
        network, model, quantization, counted, source, copy, filled.streamed, filled.sharded
    )


def _origin(folder: Path, quantization: QuantizationSection) -> tuple[str, Path | None]:
    """The fingerprint of a base, and the quantised copy of it."""
    source = fingerprint(folder)
    stored = stored_quantization(read_config(folder))
    return source, None if stored else copies.find(source, quantization)


@dataclass(frozen=True)
class Reader:
    """A checkpoint matched with the model that it fills, by names and shapes."""

    checkpoint: Checkpoint
    packed: Packed
    pairs: Match
    names: list[str]
    """Of the layers to hold quantised."""
    place: str

    @classmethod
    def of(
        cls, folder: Path, network: Any, model: ModelSection, quantization: QuantizationSection
    ) -> Reader:
        """Read the headers; `ModelError` where they do not fit the model."""
        packed_config = check_config(read_config(folder), quantization)
        checkpoint = Checkpoint(folder)
        packed = checkpoint.packed(expected=packed_config)
        names = quantizable(network, quantization)
        pairs = match(network, checkpoint.weights(packed))
        if not pairs.fused:
            if packed_config:
                names = _packed_layers(network, packed, pairs, quantization)
            check_shapes(network, pairs.names, checkpoint.dense_shapes(packed))
        elif packed_config or model.task == "classification":
            raise ModelError(
                f"{type(network).__name__}, whose tensors are fused or split on loading, cannot be "
                "put together from a quantised checkpoint, or with a classification's head",
                place=str(folder),
                hint="take the 16-bit model, or another family",
            )
        return cls(checkpoint, packed, pairs, names, model.name_or_path)

    def layers(self, bits: int) -> list[dict[str, str]]:
        """The weights to stream, layer by layer."""
        return layers_of(self.packed, self.pairs.names, bits=bits, place=self.place)


def _found(reader: Reader | None) -> tuple[Match, list[str]]:
    """What the processes that do not read must know."""
    assert reader is not None
    return reader.pairs, reader.names


class Checkpoint:
    """The safetensors files of a folder and the headers of all their tensors."""

    def __init__(self, folder: Path) -> None:
        self.index = shard_index(folder)
        self.files = sorted(set(self.index.values()))
        self.table = {
            name: entry for file in self.files for name, entry in tensor_table(file).items()
        }
        self._states: dict[str, dict[str, Any]] = {}

    def read(self, name: str) -> torch.Tensor:
        """One stored tensor, in memory of its own."""
        ((_, tensor),) = read_tensors(self.index[name], [name])
        return tensor

    def rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Rows [start, stop) of one stored tensor, in memory of their own."""
        return read_rows(self.index[name], self.table[name], start, stop)

    def raw(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Bytes [start, stop) of one stored tensor as uint8, whatever it is stored as."""
        return read_bytes(self.index[name], self.table[name], start, stop)

    def constants(self, packed: Packed, weight: str) -> dict[str, torch.Tensor]:
        """The constants of a weight that is stored quantised, by bitsandbytes' names."""
        stored = packed.groups[weight]
        found = dict(read_from(self.index, list(stored.values())))
        return {constant: found[name] for constant, name in stored.items()}

    def packed(self, *, expected: bool) -> Packed:
        """The weights that are stored quantised, with all their constants; none unless expected."""
        packed = find(self.table)
        if packed.weights and not expected:
            name = min(packed.weights)
            raise ModelError(
                f"{name} is stored quantised, but config.json has no quantization_config",
                hint="config.json does not belong to these weights",
            )
        self._states = check_constants(packed, self.table, self.index)
        return packed

    def dense_shapes(self, packed: Packed) -> dict[str, tuple[int, ...]]:
        """Shape of each weight as a dense tensor; `packed` is what this checkpoint gave."""
        shapes = {name: tuple(entry["shape"]) for name, entry in self.table.items()}
        for weight in packed.four_bit:
            shapes[weight] = tuple(self._states[weight]["shape"])
        return shapes

    def weights(self, packed: Packed) -> dict[str, tuple[int, ...]]:
        """Dense shapes of all that is stored but for constants of quantised weights."""
        shapes = self.dense_shapes(packed)
        return {name: shapes[name] for name in self.index if name not in packed.constants}

    def in_order(self, names: Iterable[str]) -> Iterator[tuple[Path, list[str]]]:
        """(file, names) as the tensors lie on disk."""
        by_file: dict[Path, list[str]] = defaultdict(list)
        for name in sorted(names, key=lambda name: self.table[name]["data_start"]):
            by_file[self.index[name]].append(name)
        for file in sorted(by_file):
            yield file, by_file[file]


def _packed_layers(
    network: Any, packed: Packed, pairs: Match, quantization: QuantizationSection
) -> list[str]:
    """Names of the layers that are stored quantised; each must be one that qtune quantises."""
    stored = [pairs.names[weight].removesuffix(".weight") for weight in sorted(packed.weights)]
    known = set(quantizable(network, quantization))
    skip = skipped(network, quantization.skip_modules)
    for name in stored:
        if name in skip:
            raise UsageError(
                f"{name} is already quantised in the checkpoint",
                place="quantization.skip_modules",
                hint="take it off the list, or take the 16-bit model",
            )
        if name not in known:
            raise ModelError(f"{name} is quantised in the checkpoint; qtune keeps it in 16 bit")
    return stored


def _audit(network: Any, *, expected: int, bits: int) -> None:
    """As many quantised layers as planned, nothing left without a value."""
    tensors = (*network.named_parameters(), *network.named_buffers())
    empty = [name for name, tensor in tensors if tensor.device.type == "meta"]
    assert not empty, f"without a value after loading: {empty[:3]}"
    if bits == 16:
        return
    found = count_quantised(network, bits)
    log.info("%d-bit layers: %d of %d expected", bits, found, expected)
    if found != expected:
        raise ModelError(f"{found} layers hold {bits}-bit weights, expected {expected}")
    if not found:
        log.warning("no layer of this model can be quantised: all weights stay in 16 bit")


def _adopt_generation_config(network: Any, folder: Path) -> None:
    """Stop tokens and sampling defaults that the model's authors ship."""
    if not (folder / "generation_config.json").is_file():
        return
    from transformers import GenerationConfig

    try:
        network.generation_config = GenerationConfig.from_pretrained(folder)
    except (OSError, ValueError, TypeError) as error:
        place = str(folder / "generation_config.json")
        raise ModelError(f"not readable: {error}", place=place) from error
