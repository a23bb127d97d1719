"""The processes that train one model together, over torch.distributed; one alone needs none of it.

Every process runs the same lines, so whatever is said here is said by all of them in the same
order. Numbers and objects go through the CPU (gloo), tensors stay on the device they are on; a
process that ends takes the others out of what they wait for, and the first one tells why.
"""

from __future__ import annotations

import json
import os
import re
import time
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from qtune import meeting
from qtune.errors import ExitCode, Fault, QtuneError, ResourceError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    import torch
    from torch import Tensor

    from qtune.meeting import Say

T = TypeVar("T")
# one may read rows for hours; one that has died is told by its socket, or by nobody's answer
_PATIENCE = timedelta(days=7)
_TELLING, _LOOK = 2.0, 0.05  # seconds that another's fault may take to be known
ENDS = "QTUNE_ENDS"  # names the file in which a launcher tells of a process that was killed
_FAULT = "qtune/fault"
_LOST = re.compile(r"\bgloo\b|\bnccl|^Dist\w*Error:", re.IGNORECASE)


class PeerLost(ResourceError):  # noqa: N818 - the name is the statement
    """Another process of the run has ended, so this one cannot go on."""


class PeerFault(QtuneError):  # noqa: N818 - the name is the statement
    """What another process of the run ended with."""

    def __init__(self, rank: int, code: int, faults: Sequence[dict[str, str]]) -> None:
        found = tuple(Fault(**fault) for fault in faults)
        super().__init__(found[0].message)
        self.faults = (
            Fault(
                message=f"rank {rank}: {found[0].message}",
                place=found[0].place,
                hint=found[0].hint,
            ),
            *found[1:],
        )
        self.args = ("\n".join(str(fault) for fault in self.faults),)
        self.code = ExitCode(code)


@dataclass(frozen=True)
class Seat:
    """Where a process sits among those of its run, and among those of its machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1


def seat() -> Seat:
    """As torchrun and accelerate tell it in the environment; alone without them."""
    told = os.environ
    if "RANK" not in told or "WORLD_SIZE" not in told:
        return Seat()
    return Seat(
        rank=_number("RANK"),
        size=_number("WORLD_SIZE"),
        local_rank=_number("LOCAL_RANK", "0"),
        local_size=_number("LOCAL_WORLD_SIZE", "1"),
    )


def _number(name: str, default: str = "") -> int:
    value = os.environ.get(name, default)
    if not value.isdecimal():
        raise UsageError(f"{value!r} is no number", place=name, hint="torchrun and srun set it")
    return int(value)


class Ranks:
    """The processes of a run as one of them sees them; without a store it is alone."""

    def __init__(self, seat: Seat = Seat(), store: Any = None) -> None:
        self.seat = seat
        self._store = store

    @property
    def size(self) -> int:
        """How many there are."""
        return self.seat.size

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.seat.rank == 0

    @property
    def alone(self) -> bool:
        """Whether there is no other."""
        return self.size == 1

    def add(self, tensor: Tensor) -> None:
        """Sum a tensor over all, in place."""
        if not self.alone:
            with _together() as distributed:
                distributed.all_reduce(tensor)

    def send(self, tensor: Tensor) -> None:
        """Give every one what the tensor holds at the first, in place; of one size at all."""
        if not self.alone:
            with _together() as distributed:
                distributed.broadcast(tensor, src=0)

    def totals(self, numbers: Sequence[int]) -> list[int]:
        """The sum over all of each of some numbers."""
        return [sum(column) for column in zip(*self.table(numbers), strict=True)]

    def table(self, numbers: Sequence[T]) -> list[list[T]]:
        """The numbers of every one, by rank: [size][len(numbers)], ints or floats."""
        if self.alone:
            return [list(numbers)]
        import torch

        own = torch.tensor([*numbers], dtype=torch.float64)
        found = [torch.empty_like(own) for _ in range(self.size)]
        with _together() as distributed:
            distributed.all_gather(found, own)
        kinds = [type(number) for number in numbers]
        rows = [row.tolist() for row in found]
        return [[kind(one) for kind, one in zip(kinds, row, strict=True)] for row in rows]  # type: ignore[call-arg]

    def everyones(self, value: T) -> list[T]:
        """The value of every one, by rank."""
        if self.alone:
            return [value]
        found: list[Any] = [None] * self.size
        with _together() as distributed:
            distributed.all_gather_object(found, value)
        return found

    def strays(self, value: object) -> list[int]:
        """The ranks whose value is another one than the first one's."""
        found = self.everyones(value)
        return [rank for rank, other in enumerate(found) if other != found[0]]

    def of_first(self, make: Callable[[], T]) -> T:
        """What the first makes, at every one; the others make nothing."""
        if self.alone:
            return make()
        box = [make() if self.first else None]
        with _together() as distributed:
            distributed.broadcast_object_list(box, src=0)
        return box[0]  # type: ignore[return-value]

    def wait(self) -> None:
        """Until all are here."""
        self.table([0])

    @contextmanager
    def one_before_the_rest(self) -> Iterator[None]:
        """One process of each machine goes through the block first, then the others."""
        if self.seat.local_rank:
            self.wait()
        yield
        if not self.seat.local_rank:
            self.wait()

    def add_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Sum the gradients over all, some at a time; who has none counts as zero."""
        if self.alone:
            return
        import torch

        waiting = [each for each in parameters if each.requires_grad]
        for parameter in waiting:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        for bucket in _buckets(waiting):
            gradients = [each.grad for each in bucket if each.grad is not None]
            flat = torch.cat([each.reshape(-1) for each in gradients])
            self.add(flat)
            pieces = flat.split([each.numel() for each in gradients])
            for gradient, piece in zip(gradients, pieces, strict=True):
                gradient.copy_(piece.view_as(gradient))

    @contextmanager
    def noticing(self) -> Iterator[None]:
        """What torch's own collectives in the block say of one that has gone becomes `PeerLost`."""
        try:
            yield
        except RuntimeError as error:
            if self.alone or not _LOST.search(f"{type(error).__name__}: {error}"):
                raise
            raise _lost(error) from error

    def tell(self, error: QtuneError) -> None:
        """Leave a fault of this process for the first one, which will say it."""
        if self._store is not None and not isinstance(error, PeerLost):
            faults = [asdict(fault) for fault in error.faults]
            told = {"rank": self.seat.rank, "code": int(error.code), "faults": faults}
            with suppress(RuntimeError):  # the first one is gone, and its store
                self._store.set(_FAULT, json.dumps(told))
                error.said_elsewhere = not self.first
            if ENDS in os.environ:  # should the first one be too busy to say it
                with suppress(OSError):
                    word_of(Path(os.environ[ENDS]), self.seat.rank).write_text(json.dumps(faults))

    def cause(self, error: PeerLost) -> QtuneError:
        """What another one, or who started us, has told of its end; the error itself where nobody
        had the time to. The first one says it, or we, where it is the one that has gone."""
        with suppress(RuntimeError, ValueError):  # torch's own errors are RuntimeErrors
            found = self._told(error)
            found.said_elsewhere = not self.first
            return found
        error.said_elsewhere = ENDS in os.environ
        return error

    def _told(self, error: PeerLost) -> QtuneError:
        end = time.monotonic() + _TELLING
        while time.monotonic() < end:
            if self._store.check([_FAULT]):
                return PeerFault(**json.loads(self._store.get(_FAULT)))
            killed = _killed() if self.first else None
            if killed is not None:
                return killed
            time.sleep(_LOOK)
        return error


def word_of(ends: Path, rank: int) -> Path:
    """Where a process leaves its faults for the launcher that named `ends`."""
    return ends.with_name(f"rank-{rank}.json")


def _killed() -> PeerLost | None:
    """What a launcher tells of a process that was killed; taken away, as we say it now."""
    name = os.environ.get(ENDS)
    if name is None or not Path(name).exists():
        return None
    told = json.loads(Path(name).read_text(encoding="utf-8"))
    Path(name).unlink()
    return PeerLost(told["message"], hint=told["hint"])


ALONE = Ranks()


@contextmanager
def joined(place: Seat, say: Say = print) -> Iterator[Ranks]:
    """The processes of this run, met by the environment's address; a process that is alone, at
    once. `say` hears whom it waits for; `ResourceError` where they do not come, `PeerLost` where
    one of them goes."""
    if place.size == 1:
        yield ALONE
        return
    from torch import cuda, distributed

    backend = "cpu:gloo,cuda:nccl" if cuda.is_available() else "gloo"
    store = meeting.meet(place.rank, place.size, say)
    with meeting.reaching():
        distributed.init_process_group(
            backend, store=store, rank=place.rank, world_size=place.size, timeout=_PATIENCE
        )
    meeting.probe_the_silent()
    ranks = Ranks(place, store)
    parts = not cuda.is_available()
    try:
        with ranks.noticing():
            yield ranks
        parts = True
    except PeerLost as error:
        raise ranks.cause(error) from error
    except QtuneError as error:
        ranks.tell(error)
        raise
    finally:
        # accelerate ends it as well; after a fault NCCL would wait here for the others, who wait
        # for this process to end
        if parts and distributed.is_initialized():
            distributed.destroy_process_group()


@contextmanager
def _together() -> Iterator[Any]:
    """torch.distributed; what it says of one that has gone becomes `PeerLost`."""
    from torch import distributed

    try:
        yield distributed
    except RuntimeError as error:
        raise _lost(error) from error


def _lost(error: RuntimeError) -> PeerLost:
    return PeerLost(
        f"another process of this run has ended, or is out of reach: {meeting.gist(error)}",
        hint="its own lines say why; the run can go on with --resume",
    )


def _buckets(parameters: Sequence[torch.nn.Parameter]) -> Iterator[list[torch.nn.Parameter]]:
    """Tensors of one kind, as many at a time as a plan counts."""
    from qtune.plan.memory import BUCKET

    bucket: list[torch.nn.Parameter] = []
    for parameter in parameters:
        full = sum(each.nbytes for each in bucket) + parameter.nbytes > BUCKET
        if bucket and (full or parameter.dtype != bucket[0].dtype):
            yield bucket
            bucket = []
        bucket.append(parameter)
    if bucket:
        yield bucket
