"""What each process of a run on one machine finds in its environment: what torchrun would set."""

from __future__ import annotations

import os
import socket
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from qtune import parent, ranks
from qtune.plan.cores import cores

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_HERE = "127.0.0.1"


def environments(size: int, port: int, ends: Path) -> list[dict[str, str]]:
    """By rank; what the person has set of threads and of the network stays. `ends`: the file in
    which one that was killed is told of."""
    shared = {
        "WORLD_SIZE": str(size),
        "LOCAL_WORLD_SIZE": str(size),
        "GROUP_RANK": "0",
        "GROUP_WORLD_SIZE": "1",
        "MASTER_ADDR": _HERE,
        "MASTER_PORT": str(port),
        parent.NAME: str(os.getpid()),
        ranks.ENDS: str(ends),
    }
    defaults = {"OMP_NUM_THREADS": str(max(1, cores() // size))}
    if sys.platform == "linux":  # a host whose name leads elsewhere, or nowhere, meets as well
        defaults["GLOO_SOCKET_IFNAME"] = "lo"
    base = defaults | dict(os.environ) | shared
    return [base | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(size)]


@contextmanager
def held_port() -> Iterator[int]:
    """A free port for the store of rank 0, which no other process is given meanwhile.

    Linux lets a second socket listen where a first one is bound that does not: the first, ours,
    keeps it out of what the system hands out. Elsewhere it is let go at once.
    """
    both = socket.has_dualstack_ipv6()  # torch's store listens on IPv6 where there is such
    with socket.socket(socket.AF_INET6 if both else socket.AF_INET) as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if both:
            held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        held.bind(("", 0))
        port: int = held.getsockname()[1]
        if sys.platform != "linux":
            held.close()
        yield port
