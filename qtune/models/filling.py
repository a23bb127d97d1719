"""An empty model filled with what its checkpoint holds, one tensor at a time."""

from __future__ import annotations

import itertools
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from qtune.models import heads
from qtune.models.placing import place, place_packed
from qtune.models.preparation import compute_buffers
from qtune.models.relay import Relay
from qtune.models.sharding import WHOLE, Sharder
from qtune.models.shards import read_tensors
from qtune.models.streaming import Streamer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from qtune.models.loading import Reader
    from qtune.models.names import Match
    from qtune.models.prequantized import Packed
    from qtune.models.sharding import Sharded, Spread
    from qtune.models.streaming import Streamed
    from qtune.ranks import Ranks
    from qtune.recipe.inputs import QuantizationSection


@dataclass(frozen=True)
class Filled:
    """What of a model does not lie whole on the device."""

    streamed: Streamed | None = None
    sharded: Sharded | None = None


@dataclass
class Filler:
    """Fills an empty model from a checkpoint, one tensor at a time; without a reader, with what
    another process reads."""

    network: Any
    reader: Reader | None
    pairs: Match
    quantization: QuantizationSection
    device: torch.device
    spread: Spread = WHOLE

    def fill(
        self, ranks: Ranks, *, streams: bool, on_progress: Callable[[int, int], None] | None
    ) -> Filled:
        """Place every tensor, tie what is tied, and compute the buffers that no checkpoint
        holds."""
        sharder = Sharder(self.network, self.spread, self.device) if self.spread.sharded else None
        take = None if sharder is None else sharder.take
        relay = Relay(self.network, ranks, dtype=self._dtype, device=self.device)
        streamed = None
        if self.reader is None:
            count = _counter(len(self.pairs.names), on_progress)
            relay.receive(_each(take, lambda _: count()))
        else:
            layers = self.reader.layers(self.quantization.bits) if streams else []
            streaming = {name for layer in layers for name in layer}
            names = {name: at for name, at in self.pairs.names.items() if name not in streaming}
            count = _counter(len(names) + len(layers), on_progress)
            send = None if ranks.alone else relay.send
            self._read(names, _each(send, take, lambda _: count()))
            relay.end()
            streamed = self._stream(self.reader, layers, count) if layers else None
        heads.begin(self.network, self.pairs.new, self.device)
        self.network.tie_weights(missing_keys=set(self.pairs.missing), recompute_mapping=False)
        compute_buffers(self.network, self.device)
        return Filled(streamed, sharder.finish() if sharder else None)

    def _read(self, names: Mapping[str, str], placed: Callable[[str], None]) -> None:
        """Place the tensors of `names` (stored -> the model's) in the order of the disk;
        `placed` is told the model's name of each."""
        assert self.reader is not None
        checkpoint, packed = self.reader.checkpoint, self.reader.packed
        groups = _Groups(packed, names)
        for file, stored in checkpoint.in_order(groups.names):
            for name, tensor in read_tensors(file, stored):
                target = names.get(name)
                if target is not None and name not in packed.weights:
                    place(self.network, target, tensor, self.quantization, self.device)
                    placed(target)
                elif (whole := groups.add(name, tensor)) is not None:
                    target = names[whole[0]]
                    self._place_packed(target, whole[1])
                    placed(target)
                    del whole
                del tensor

    def _place_packed(self, target: str, parts: Mapping[str, torch.Tensor]) -> None:
        place_packed(self.network, target, parts, dtype=self._dtype, device=self.device)

    def _stream(
        self, reader: Reader, layers: Sequence[Mapping[str, str]], count: Callable[[], None]
    ) -> Streamed:
        checkpoint, packed = reader.checkpoint, reader.packed
        return Streamer(self.network, checkpoint, packed, self._dtype, self.device).fill(
            layers, count
        )

    @property
    def _dtype(self) -> torch.dtype:
        return getattr(torch, self.quantization.compute_dtype)  # type: ignore[no-any-return]


def _each(*told: Callable[[str], None] | None) -> Callable[[str], None]:
    """Tell a name to one after the other."""

    def tell(name: str) -> None:
        for one in told:
            if one is not None:
                one(name)

    return tell


class _Groups:
    """Puts quantised weights together with their constants, which come in the order of the disk."""

    def __init__(self, packed: Packed, names: Iterable[str]) -> None:
        groups = {name: packed.groups[name] for name in names if name in packed.groups}
        self.names = [*names, *(part for group in groups.values() for part in group.values())]
        """Every stored tensor to read."""
        self._parts = {name: {"weight": name} | group for name, group in groups.items()}
        self._owners = {
            part: (name, key) for name, group in self._parts.items() for key, part in group.items()
        }
        self._here: dict[str, dict[str, torch.Tensor]] = defaultdict(dict)

    def add(self, part: str, tensor: torch.Tensor) -> tuple[str, dict[str, torch.Tensor]] | None:
        """The weight's name and all its parts when this was the last of them."""
        name, key = self._owners[part]
        self._here[name][key] = tensor
        if len(self._here[name]) < len(self._parts[name]):
            return None
        return name, self._here.pop(name)


def _counter(total: int, on_progress: Callable[[int, int], None] | None) -> Callable[[], None]:
    """What is called when one more of so many is done."""
    numbers = itertools.count(1)

    def count() -> None:
        if on_progress is not None:
            on_progress(next(numbers), total)

    return count
