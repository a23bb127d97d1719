"""Signals as bytes to read: a process that waits for others sees each of them in its loop."""

from __future__ import annotations

import signal
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

from qtune.errors import stop_signals

if TYPE_CHECKING:
    from collections.abc import Iterator

_HEARD = (signal.SIGUSR1, signal.SIGTSTP, signal.SIGCHLD)  # beside those to stop
# A process in the background that writes to a terminal is stopped by TTOU where `stty tostop` is
# set; and USR1, which asks for a checkpoint, would end one that does not listen yet.
_DEAF = (signal.SIGTTOU, signal.SIGUSR1)


@contextmanager
def heard() -> Iterator[socket.socket]:
    """A socket from which the numbers of the signals come, a byte each."""
    reader, writer = socket.socketpair()
    reader.setblocking(False)
    writer.setblocking(False)
    before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    former = {number: signal.signal(number, _nothing) for number in (*stop_signals(), *_HEARD)}
    try:
        yield reader
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(before)
        reader.close()
        writer.close()


@contextmanager
def deaf() -> Iterator[None]:
    """What is started inside ignores some signals until it listens to them itself."""
    former = {number: signal.signal(number, signal.SIG_IGN) for number in _DEAF}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _nothing(*_: object) -> None:
    """The byte has been written already."""
