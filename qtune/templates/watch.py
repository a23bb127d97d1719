"""A chat template is foreign code, which may not hang: its loops run as Python bytecode, so
another thread can end them with an exception."""

from __future__ import annotations

import ctypes
import threading
import time
from typing import TYPE_CHECKING, TypeVar

from qtune.thread_clock import computing_time

if TYPE_CHECKING:
    from collections.abc import Callable

SECONDS = 2.0
_TICK = 0.1
_IDLE_TICKS = 20

T = TypeVar("T")


class TakesTooLong(BaseException):
    """Raised inside a render by its watch; no template and no library can catch it by accident."""


class Watch:
    """Runs functions, and ends those that compute for longer than a number of seconds.

    Only the thread's own computing time counts: a machine that is busy or asleep ends nothing.
    The watching thread lives while there is something to watch, and a little longer.
    """

    def __init__(self, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._job: _Job | None = None
        self._jobs = 0
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def call(self, function: Callable[[], T]) -> T:
        """The function's value; `TakesTooLong` if it does not come in time."""
        self._keep_watching()
        job = _Job()
        self._jobs += 1
        self._job = job
        try:
            return function()
        finally:
            self._job = None
            while job.firing:
                time.sleep(0)
            if job.fired:  # what was not delivered in there must not be out here
                _raise_in(job.thread, None)

    def _keep_watching(self) -> None:
        thread = self._thread
        if thread is not None and thread.is_alive():
            return
        with self._starting:
            self._thread = threading.Thread(target=self._watch, name="template", daemon=True)
            self._thread.start()

    def _watch(self) -> None:
        idle, seen = 0, self._jobs
        while idle < _IDLE_TICKS:
            time.sleep(_TICK)
            job = self._job
            idle = idle + 1 if job is None and seen == self._jobs else 0
            seen = self._jobs
            if job is not None and job.seconds() > self._seconds:
                self._end(job)
        self._thread = None
        if self._job is not None:  # begun while this thread was about to leave
            self._keep_watching()

    def _end(self, job: _Job) -> None:
        """Raise in the job's thread, unless it is done: it waits while `firing` is set."""
        job.firing = True
        if self._job is job:
            _raise_in(job.thread, TakesTooLong)
            job.fired = True
        job.firing = False


class _Job:
    """A running function: its thread, and that thread's clock."""

    __slots__ = ("_clock", "_start", "fired", "firing", "thread")

    def __init__(self) -> None:
        self.thread = threading.get_ident()
        self.firing = self.fired = False
        self._clock = computing_time()
        self._start = self._clock()

    def seconds(self) -> float:
        """How long it has been computing."""
        return self._clock() - self._start


def _raise_in(thread: int, kind: type[BaseException] | None) -> None:
    """Have an exception raised in a thread; None takes one back that was not raised yet."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread), None if kind is None else ctypes.py_object(kind)
    )
