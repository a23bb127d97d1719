"""A process that works for another one ends with it, however that one ends: killed, or out of
memory. Linux tells it; elsewhere it goes on to its end."""

from __future__ import annotations

import os
import signal
import sys

NAME = "QTUNE_PARENT"
_SET_SIGNAL_OF_PARENTS_END = 1  # prctl(2): PR_SET_PDEATHSIG


def end_with_parent() -> None:
    """Ask for TERM, which is handled as ever, when the process that NAME tells has ended."""
    parent = os.environ.pop(NAME, None)  # our own children have another one
    if parent is None or sys.platform != "linux":
        return
    import ctypes

    ctypes.CDLL(None).prctl(_SET_SIGNAL_OF_PARENTS_END, signal.SIGTERM)
    if os.getppid() != int(parent):  # it has ended before it could be told
        signal.raise_signal(signal.SIGTERM)
