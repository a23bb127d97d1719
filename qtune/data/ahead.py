"""Items that a thread makes while others are used."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager, suppress
from queue import Full, Queue
from threading import Event, Thread
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

T = TypeVar("T")
_LOOK_SECONDS = 0.1


class _End:
    """The last thing in the queue: the items are used up, or an error ended them."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


@contextmanager
def ahead(items: Iterator[T], most: int) -> Iterator[Iterator[T]]:
    """The same items, at most so many made before they are asked for; an error in making one is
    raised when its turn comes. The thread ends with the block."""
    queue: Queue[T | _End] = Queue(most)
    closed = Event()

    def put(item: T | _End) -> None:
        while not closed.is_set():
            with suppress(Full):
                queue.put(item, timeout=_LOOK_SECONDS)
                break

    def work() -> None:
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
            if isinstance(items, Generator):  # what it opened is closed here, not by chance later
                items.close()

    thread = Thread(target=work, name="qtune-ahead", daemon=True)
    thread.start()
    try:
        yield _taken(queue)
    finally:
        closed.set()
        thread.join()


def _taken(queue: Queue[T | _End]) -> Iterator[T]:
    while True:
        item = queue.get()
        if not isinstance(item, _End):
            yield item
        elif item.error is None:
            return
        else:
            raise item.error
