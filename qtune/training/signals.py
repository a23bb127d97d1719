"""A polite end: signals set a flag that is read between two steps, and while measuring."""

from __future__ import annotations

import signal
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from qtune.errors import ECHO_SECONDS, STOP_SIGNALS, stop_signals

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from qtune.errors import ExitCode


class Interrupted(Exception):  # noqa: N818 - no fault of anybody's
    """Work that can be done again later was left for a signal."""


class StopRequest:
    """Set by the first INT, TERM or HUP; a second one ends the process at once, unless it is an
    echo: a launcher passes on the Ctrl-C that the terminal has sent to us already.

    USR1 asks for a checkpoint, and the run goes on.
    """

    def __init__(self) -> None:
        self.code: ExitCode | None = None
        self.save = False
        self._asked_at = 0.0

    def receive(self, number: int, _: FrameType | None) -> None:
        """Signal handler."""
        if number == signal.SIGUSR1:
            self.save = True
            return
        if self.code is not None:
            if time.monotonic() - self._asked_at < ECHO_SECONDS:
                return
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self._asked_at = time.monotonic()
        self.code = STOP_SIGNALS[signal.Signals(number)]

    def interrupt(self) -> None:
        """Raise `Interrupted` when the run is to stop: for work that can be done again."""
        if self.code is not None:
            raise Interrupted

    def take_save(self) -> bool:
        """Whether a checkpoint was asked for since the last call."""
        asked, self.save = self.save, False
        return asked


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Listen for INT, TERM, HUP and USR1 inside the block; the former handlers come back after."""
    request = StopRequest()
    numbers = [*stop_signals(), signal.SIGUSR1]
    former = {number: signal.signal(number, request.receive) for number in numbers}
    try:
        yield request
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
