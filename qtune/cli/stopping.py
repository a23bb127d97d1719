"""INT, TERM and HUP outside training, where there is nothing to save: the work is left where it
stands, what was half made is cleared away, and the process ends with the signal's code."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

from qtune.errors import ECHO_SECONDS, STOP_SIGNALS, ExitCode, stop_signals

if TYPE_CHECKING:
    from types import FrameType

_LOOK_SECONDS = 0.02
_IMPORTING = "<frozen importlib._bootstrap>"


class Signalled(BaseException):
    """Raised in the main thread by a signal; no library catches it by accident."""

    def __init__(self, code: ExitCode) -> None:
        self.code = code


class Stopping:
    """Raises `Signalled` for a signal, though not inside an import: libraries that are
    half imported drop such an exception, or make another one of it. A second signal ends the
    process at once, unless it is an echo of the first.

    `code`: of the signal that came, None before.
    """

    def __init__(self) -> None:
        self.code: ExitCode | None = None
        self._came_at = 0.0

    def listen(self) -> None:
        """Take the signals from now on."""
        for number in stop_signals():
            signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.code is not None:
            if time.monotonic() - self._came_at < ECHO_SECONDS:
                return
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self._came_at = time.monotonic()
        self.code = STOP_SIGNALS[signal.Signals(number)]
        self._raise_or_wait(signal.SIGALRM, frame)

    def _raise_or_wait(self, _: int, frame: FrameType | None) -> None:
        if _is_importing(frame):
            signal.signal(signal.SIGALRM, self._raise_or_wait)
            signal.setitimer(signal.ITIMER_REAL, _LOOK_SECONDS)
            return
        assert self.code is not None
        raise Signalled(self.code)


def _is_importing(frame: FrameType | None) -> bool:
    """Whether this frame, or one that it was called from, imports a module."""
    while frame is not None:
        if frame.f_code.co_filename == _IMPORTING:
            return True
        frame = frame.f_back
    return False
