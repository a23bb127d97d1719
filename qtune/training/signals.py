"""A polite end: signals set a flag that the loop reads between two steps."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

from qtune.errors import STOP_SIGNALS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from qtune.errors import ExitCode


class StopRequest:
    """Set by the first INT, TERM or HUP; a second one ends the process at once."""

    def __init__(self) -> None:
        self.code: ExitCode | None = None

    def receive(self, number: int, _: FrameType | None) -> None:
        """Signal handler."""
        if self.code is not None:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.code = STOP_SIGNALS[signal.Signals(number)]


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Listen for INT, TERM and HUP inside the block; the former handlers come back after it."""
    request = StopRequest()
    former = {number: signal.signal(number, request.receive) for number in STOP_SIGNALS}
    try:
        yield request
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
