"""How the processes of a run find one another: by the address that all of them are told."""

from __future__ import annotations

import os
import re
import socket
import stat
import time
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtune.errors import ResourceError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Say = Callable[[str], object]

LIMIT = 900.0
"""Seconds in which the last one must have come; the machines of a job start apart."""
_CHATTER = re.compile(r"^\[[^\]]*:\d+\] |\. This is typically .*")  # gloo's
_QUIET, _SAID_EVERY = 10.0, 60.0
_LOOK, _KNOCK = 0.05, 1.0
# A machine that has vanished answers no probe: three minutes, after which the kernel breaks its
# connections off. A process that is only busy, or stopped, is not asked.
_PROBES = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 20, "TCP_KEEPCNT": 6, "TCP_USER_TIMEOUT": 180_000}


def meet(rank: int, size: int, say: Say) -> Any:
    """The store that all processes of a run share, once the last of them has come to the address.

    `UsageError` for an address that is none; `ResourceError` where they do not come.
    """
    from torch.distributed import PrefixStore  # type: ignore[attr-defined]

    host, port = address()
    waiting = _Waiting(say)
    # torchrun starts anew beside the store of those that ended, which holds their addresses
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)
    store = PrefixStore(f"qtune-{attempt}", _store(host, port, rank, waiting))
    with reaching():
        store.add("here", 1)
        while (came := store.add("here", 0)) < size:
            waiting.look(f"{came} of {size} processes are here")
    return store


def address() -> tuple[str, int]:
    """Where rank 0 listens, as the environment has it."""
    found = {name: os.environ.get(name, "") for name in ("MASTER_ADDR", "MASTER_PORT")}
    if missing := [name for name, value in found.items() if not value]:
        raise UsageError(
            f"RANK and WORLD_SIZE are set, {missing[0]} is not",
            place=missing[0],
            hint="set it, or start with qtune train --processes, torchrun or accelerate launch",
        )
    port = found["MASTER_PORT"]
    if not port.isdecimal() or not 0 < int(port) < 2**16:
        raise UsageError(f"{port!r} is no port", place="MASTER_PORT", hint="a number below 65536")
    return found["MASTER_ADDR"], int(port)


def _place() -> str:
    host, port = address()
    return f"{host}:{port}"


def gist(error: BaseException) -> str:
    """The first line of what torch says, without the place in its C++."""
    line = _CHATTER.sub("", str(error).partition("\n")[0])
    return line[:200].strip() or type(error).__name__


def probe_the_silent() -> None:
    """Let the kernel ask whether the other end of each connection is still there; Linux only."""
    folder = Path("/proc/self/fd")
    if not folder.is_dir():
        return
    for file in folder.iterdir():
        with suppress(OSError):
            number = int(file.name)
            if stat.S_ISSOCK(os.fstat(number).st_mode):
                with socket.socket(fileno=os.dup(number)) as held:
                    _probe(held)


def _probe(held: socket.socket) -> None:
    if held.type == socket.SOCK_STREAM and held.family != socket.AF_UNIX:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _PROBES.items():
            held.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


class _Waiting:
    """Looks again and again, by Python, so that signals are heard; says so now and then."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._begun = time.monotonic()
        self._next = self._begun + _QUIET

    def look(self, what: str, seconds: float = _LOOK) -> None:
        """Wait a little; `ResourceError` when the time is over."""
        now = time.monotonic()
        if now - self._begun > LIMIT:
            raise ResourceError(
                f"the processes of this run have not met at {_place()} in {LIMIT:.0f} s: {what}",
                place="MASTER_ADDR, MASTER_PORT",
                hint="look for the lines of those that are missing, or for a firewall",
            )
        if now >= self._next:
            self._next = now + _SAID_EVERY
            self._say(f"waiting for the others at {_place()}: {what}")
        time.sleep(seconds)


def _store(host: str, port: int, rank: int, waiting: _Waiting) -> Any:
    """Torch's store at the address: our own at rank 0, but for torchrun's, who holds one itself."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    held_elsewhere = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    keeps = rank == 0 and not held_elsewhere
    if not keeps:
        _knock(host, port, waiting)
    with reaching():
        return TCPStore(
            host,
            port,
            is_master=keeps,
            timeout=timedelta(seconds=60),
            wait_for_workers=False,
            multi_tenant=True,
        )


def _knock(host: str, port: int, waiting: _Waiting) -> None:
    """Until somebody listens: torch itself would wait deaf to signals."""
    while True:
        try:
            socket.create_connection((host, port), timeout=5).close()
            return
        except OSError as error:
            waiting.look(f"rank 0 is not there ({error.strerror or error})", _KNOCK)


@contextmanager
def reaching() -> Iterator[None]:
    """What torch says of the network in the block becomes a `ResourceError`."""
    try:
        yield
    except RuntimeError as error:
        raise ResourceError(
            f"the processes of this run do not reach one another at {_place()}: {gist(error)}",
            place="MASTER_ADDR, MASTER_PORT",
            hint="is the port free, and GLOO_SOCKET_IFNAME, if set, an interface of this machine?",
        ) from error
