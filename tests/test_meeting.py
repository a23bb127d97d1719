"""Processes that do not come, or cannot: said, limited, and left at once when a signal comes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from qtune import meeting
from qtune.errors import ResourceError, UsageError
from qtune.ranks import Seat, joined, seat

FILES = Path("/proc/self/fd")
WAITS = """
from qtune.cli.stopping import Signalled, Stopping
from qtune.ranks import Seat, joined
from qtune import meeting
meeting._QUIET = 0.0
Stopping().listen()
try:
    with joined(Seat(0, 2), lambda line: print(line, flush=True)):
        pass
except Signalled as stopped:
    raise SystemExit(int(stopped.code))
"""


@pytest.fixture
def held() -> Iterator[socket.socket]:
    """A port of this machine at which somebody else listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        yield held


@pytest.fixture(autouse=True)
def _address(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(port))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("MASTER_ADDR", "", "MASTER_ADDR: RANK and WORLD_SIZE are set, MASTER_ADDR is not"),
        ("MASTER_PORT", "", "MASTER_PORT: RANK and WORLD_SIZE are set, MASTER_PORT is not"),
        ("MASTER_PORT", "ssh", "MASTER_PORT: 'ssh' is no port"),
        ("MASTER_PORT", "65536", "MASTER_PORT: '65536' is no port"),
    ],
)
def test_an_address_that_is_none(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError) as caught, joined(Seat(0, 2)):
        pass
    assert str(caught.value).startswith(said)


def test_a_seat_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "first")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="RANK: 'first' is no number"):
        seat()


@pytest.mark.parametrize(
    ("rank", "missing"), [(0, "1 of 2 processes are here"), (1, "rank 0 is not there")]
)
def test_who_does_not_come_is_waited_for_a_while(
    monkeypatch: pytest.MonkeyPatch, rank: int, missing: str
) -> None:
    monkeypatch.setattr(meeting, "LIMIT", 0.3)
    monkeypatch.setattr(meeting, "_QUIET", 0.0)
    said: list[str] = []
    with (
        pytest.raises(ResourceError, match="not met at") as caught,
        joined(Seat(rank, 2), said.append),
    ):
        pass
    assert missing in str(caught.value)
    [line] = said
    assert line.startswith("waiting for the others at 127.0.0.1:")
    assert missing in line


def test_a_port_that_is_taken_is_named(
    monkeypatch: pytest.MonkeyPatch, held: socket.socket
) -> None:
    port = held.getsockname()[1]
    monkeypatch.setenv("MASTER_PORT", str(port))
    with (
        pytest.raises(ResourceError, match="do not reach one another") as caught,
        joined(Seat(0, 2)),
    ):
        pass
    assert str(port) in str(caught.value)
    assert "in use" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_signal_ends_the_waiting() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WAITS], stdout=subprocess.PIPE, text=True, env=os.environ.copy()
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("waiting for the others at")
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 143


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone names the open files")
def test_the_kernel_asks_whether_the_others_are_there(held: socket.socket) -> None:
    before = len([*FILES.iterdir()])
    assert not held.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    meeting.probe_the_silent()
    assert held.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert held.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60
    assert len([*FILES.iterdir()]) == before
