"""The computing time of a thread: what is busy can be told from what hangs, and from a process
that was put to sleep."""

from __future__ import annotations

import threading
import time
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def computing_time() -> Callable[[], float]:
    """A clock of the seconds that the calling thread has computed, for any thread to read; of the
    wall on systems that do not tell. `OSError` once the thread has ended."""
    find = getattr(time, "pthread_getcpuclockid", None)
    if find is None:
        return time.monotonic
    return partial(time.clock_gettime, find(threading.get_ident()))
