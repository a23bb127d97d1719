"""The layers of a 4-bit base in shards over the processes of a run, by torch's `fully_shard`.

The packed codes of each layer's linears are one group: gathered when the layer computes, forward
and backward, and freed behind it. They are held as bfloat16, of which the bytes matter alone. The
constants, the norms, the embeddings and the head stay whole on every process; adapters come later
and are in no group.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from qtune.errors import ModelError, UsageError
from qtune.models.own_product import ask_own_product
from qtune.models.placing import owner_of
from qtune.ops.nf4 import bits_of, to_storage
from qtune.plan import human
from qtune.ranks import ALONE

if TYPE_CHECKING:
    from torch import Tensor

    from qtune.ranks import Ranks

Strategy = Literal["none", "ddp", "fsdp"]
_LAYER = re.compile(r".*?\.\d+(?=\.)")


@dataclass(frozen=True)
class Spread:
    """How a base lies over the processes of a run: whole on each, or its layers in shards, which
    wait on the device or, with `offload`, in host memory."""

    ranks: Ranks = ALONE
    strategy: Strategy = "none"
    offload: bool = False

    @property
    def sharded(self) -> bool:
        """Whether layers lie in shards."""
        return self.strategy == "fsdp"


WHOLE = Spread()


@dataclass(frozen=True)
class Sharded:
    """What lies in shards: the codes of each layer, in bytes when gathered and here."""

    layer_bytes: tuple[int, ...]
    shard_bytes: int
    offload: bool

    def line(self) -> str:
        """What is sharded, for the log."""
        where = "in host memory" if self.offload else "on the device"
        return (
            f"the base is sharded: of {len(self.layer_bytes)} layers of together "
            f"{human(sum(self.layer_bytes))} this process holds {human(self.shard_bytes)} "
            f"{where}, and gathers {human(max(self.layer_bytes))} a layer"
        )


@dataclass
class Sharder:
    """Takes its shard of each weight as it comes, and hands the layers to torch in the end."""

    network: Any
    spread: Spread
    device: torch.device
    _shards: dict[str, Any] = field(default_factory=dict, init=False)
    """By the layer's name and the weight's owner's: DTensors."""

    def __post_init__(self) -> None:
        from torch.distributed.device_mesh import init_device_mesh

        self._mesh = init_device_mesh(self.device.type, (self.spread.ranks.size,))

    def take(self, name: str) -> None:
        """Keep the shard of a weight that was placed whole, if it is one to shard."""
        owner, leaf = owner_of(self.network, name)
        if leaf != "weight" or bits_of(owner) != 4 or not _LAYER.match(name):
            return
        stored = to_storage(owner.weight.data)
        self._shards[name.removesuffix(".weight")] = self._shard(stored)
        empty = torch.empty_like(stored, device="meta")
        owner.weight = nn.Parameter(empty, requires_grad=False)
        ask_own_product(owner)

    def _shard(self, stored: Tensor) -> Any:
        """The part of this process, in memory of its own."""
        from torch.distributed.tensor import DTensor, Shard, distribute_tensor

        placed = [Shard(0)]
        part = distribute_tensor(stored, self._mesh, placed, src_data_rank=None).to_local()
        shape, stride = stored.shape, stored.stride()
        own = part.clone() if part.untyped_storage().nbytes() > part.nbytes else part
        shard = DTensor.from_local(
            own, self._mesh, placed, run_check=False, shape=shape, stride=stride
        )
        return shard.cpu() if self.spread.offload else shard

    def finish(self) -> Sharded:
        """Make each layer one group, and the decoder their root: it is what losses call.

        `ModelError` where no layer has anything to shard.
        """
        if not self._shards:
            raise ModelError(
                f"{type(self.network).__name__} has no layers with 4-bit weights to shard",
                hint="set distributed.strategy to ddp",
            )
        layers: dict[str, list[str]] = {}
        for name in self._shards:
            layers.setdefault(_layer_of(name), []).append(name)
        for layer, names in layers.items():
            self._group(self.network.get_submodule(layer), names)
        self._group(self.network.base_model, [])
        for name, shard in self._shards.items():
            owner = self.network.get_submodule(name)
            owner._parameters["weight"] = nn.Parameter(shard, requires_grad=False)
        held = self._shards
        sizes = tuple(sum(held[name].nbytes for name in names) for names in layers.values())
        here = sum(shard.to_local().nbytes for shard in held.values())
        return Sharded(sizes, here, self.spread.offload)

    def _group(self, module: nn.Module, names: list[str]) -> None:
        from torch.distributed.fsdp import CPUOffloadPolicy, OffloadPolicy, fully_shard

        own = {id(self.network.get_submodule(name).weight) for name in names}
        pinned = self.device.type != "cpu"
        policy = CPUOffloadPolicy(pin_memory=pinned) if self.spread.offload else OffloadPolicy()
        fully_shard(
            module,
            mesh=self._mesh,
            reshard_after_forward=True,
            offload_policy=policy,
            ignored_params={each for each in module.parameters() if id(each) not in own},
        )


def refuse(spread: Spread, *, bits: int, streamed: bool = False, converted: bool = False) -> None:
    """`UsageError` or `ModelError` for a base that cannot be sharded."""
    if not spread.sharded:
        return
    if bits != 4:
        raise UsageError(
            f"only a 4-bit base can be sharded, not one of {bits} bits",
            place="distributed.strategy",
            hint="set it to ddp, or quantization.bits to 4",
        )
    if streamed:
        raise UsageError(
            "a base that is streamed cannot be sharded",
            place="memory.base",
            hint="set it to resident, or distributed.strategy to ddp",
        )
    if converted:
        raise ModelError(
            "a family whose tensors are fused or split on loading cannot be sharded",
            hint="set distributed.strategy to ddp",
        )


def _layer_of(name: str) -> str:
    found = _LAYER.match(name)
    assert found is not None
    return found[0]
