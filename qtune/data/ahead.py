"""Items that a thread makes while others are used; one that dies or hangs is told, not waited for
in silence."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty, Full, Queue
from threading import Event, Thread, get_ident
from typing import TYPE_CHECKING, TypeVar

import torch

from qtune.errors import ResourceError
from qtune.thread_clock import computing_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")
_LOOK_SECONDS = 0.1
SAID_AFTER, LEFT_AFTER = 5.0, 300.0  # seconds in which the thread has done nothing at all
_FAREWELL_SECONDS = 5.0


class _End:
    """The last thing in the queue: the items are used up, or an error ended them."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


def ignore(_: str) -> None:
    """Tell nobody."""


@contextmanager
def ahead(
    items: Iterator[T], most: int, tell: Callable[[str], None] = ignore
) -> Iterator[Iterator[T]]:
    """The same items, at most so many made before they are asked for; an error in making one is
    raised when its turn comes. The thread ends with the block.

    While an item is waited for and its thread stands still, `tell` gets a line; `ResourceError`
    after some minutes of it.
    """
    queue: Queue[T | _End] = Queue(most)
    closed, watch = Event(), _Watch(tell)
    alone = _Alone()

    def put(item: T | _End) -> None:
        while not closed.is_set():
            with suppress(Full):
                queue.put(item, timeout=_LOOK_SECONDS)
                break

    def work() -> None:
        alone.enter()
        watch.watch_this_thread()
        try:
            for item in items:
                put(item)
                if closed.is_set():
                    return
        except BaseException as error:  # it belongs to whoever waits for the item
            put(_End(error))
        else:
            put(_End())
        finally:
            if isinstance(items, Generator):  # its files and threads end here, not at some time
                items.close()

    thread = Thread(target=work, name="qtune-ahead", daemon=True)
    thread.start()
    alone.wait()
    try:
        yield _taken(queue, watch)
    finally:
        closed.set()
        thread.join(_FAREWELL_SECONDS)  # one that hangs must not make its user hang


class _Alone:
    """Makes a thread compute on one core.

    By default torch gives it a team of threads like everybody's. OpenMP then counts more threads
    than cores and lets all of them sleep whenever they wait, the training's too: on two cores that
    took a third of its speed.
    """

    def __init__(self) -> None:
        self._threads = torch.get_num_threads()
        self._entered = Event()

    def enter(self) -> None:
        """Called by the thread."""
        torch.set_num_threads(1)
        self._entered.set()

    def wait(self) -> None:
        """Called by the thread that started it: later threads get what they would have got."""
        self._entered.wait()
        torch.set_num_threads(self._threads)


def _taken(queue: Queue[T | _End], watch: _Watch) -> Iterator[T]:
    while True:
        item = _next(queue, watch)
        if not isinstance(item, _End):
            yield item
        elif item.error is None:
            return
        else:
            raise item.error


def _next(queue: Queue[T | _End], watch: _Watch) -> T | _End:
    watch.begin()
    while True:
        try:
            return queue.get(timeout=_LOOK_SECONDS)
        except Empty:
            watch.look()


class _Watch:
    """Counts for how long the thread that is waited for has not computed.

    It counts looks and not the clock: a process that was stopped for an hour has waited for none.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._thread = 0
        self._clock: Callable[[], float] | None = None
        self.begin()

    def watch_this_thread(self) -> None:
        """Called by the thread that makes the items."""
        self._thread, self._clock = get_ident(), computing_time()

    def begin(self) -> None:
        """An item is waited for from now on."""
        self._idle, self._computed = 0.0, -1.0

    def look(self) -> None:
        """After `_LOOK_SECONDS` without an item; `ResourceError` when it has been too long."""
        computed = self._computed
        with suppress(OSError):  # the thread has ended
            computed = self._clock() if self._clock else 0.0
        self._idle = self._idle + _LOOK_SECONDS if computed == self._computed else 0.0
        self._computed = computed
        if self._idle >= LEFT_AFTER:
            raise ResourceError(
                f"no rows have come for {self._idle:.0f} s: their thread hangs in {self._where()}",
                hint="see to the disk or the network that they come from, and go on with --resume",
            )
        if SAID_AFTER <= self._idle < SAID_AFTER + _LOOK_SECONDS:
            self._tell(
                f"warning: no rows have come for {self._idle:.0f} s; "
                f"their thread is in {self._where()}"
            )

    def _where(self) -> str:
        """The call in which the thread is."""
        frame = sys._current_frames().get(self._thread)
        if frame is None:
            return "no call any more"
        innermost = traceback.extract_stack(frame)[-1]
        return f"{innermost.name} ({Path(innermost.filename).name}:{innermost.lineno})"
