"""Batches encoded by other processes, in order, where there are rows enough to pay for them.

Templates are written by Python code, which one process runs on one core. A worker is a fresh
process that is told the setting and then a batch at a time over a socket of its own; it ends when
the socket does. What it returns is what would have been made here.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from collections import deque
from contextlib import ExitStack, closing, contextmanager, suppress
from itertools import islice
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from typing import TYPE_CHECKING

from qtune.data.encoding import Encoding
from qtune.plan.cores import cores

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from qtune.data.encoding import Done, Setting, Task

TRIED = 4
"""Batches that are encoded here to know how long one takes."""
WORTH_SECONDS = 20.0
"""Less work than that is done before workers are ready."""
MOST = 8
"""Reading and checking, which stays here, feeds no more."""
_SERVE = "import sys; from qtune.data.workers import serve; serve(int(sys.argv[1]))"


class Worker:
    """A process that encodes one batch at a time."""

    def __init__(self) -> None:
        self._ours, theirs = Pipe()
        own = {
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "TOKENIZERS_PARALLELISM": "false",
            "OMP_NUM_THREADS": "1",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SERVE, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            env={**os.environ, **own},
            start_new_session=True,  # an interrupt is for the process that reads the rows
        )
        theirs.close()
        self._task: Task | None = None

    @property
    def busy(self) -> bool:
        """Whether there is a batch to take."""
        return self._task is not None

    def tell(self, setting: bytes) -> None:
        """Send the pickled setting; returns when the worker has begun."""
        with suppress(OSError):
            self._ours.send_bytes(setting)

    def give(self, task: Task) -> None:
        """Send a batch."""
        self._task = task
        with suppress(OSError):
            self._ours.send(task)

    def take(self, encoding: Encoding) -> Done:
        """What became of the batch; encoded here where the worker is gone (out of memory, say)."""
        assert self._task is not None
        task, self._task = self._task, None
        try:
            done: Done = self._ours.recv()
        except (EOFError, OSError):
            return encoding.done(task)
        return done

    def close(self) -> None:
        """End the process."""
        self._ours.close()
        self._process.kill()
        self._process.wait()


def serve(descriptor: int) -> None:
    """What a worker does: batches to blocks, until the socket is closed."""
    with Connection(descriptor) as connection, suppress(EOFError, OSError):
        encoding = Encoding(connection.recv())
        while True:
            connection.send(encoding.done(connection.recv()))


def encoded(encoding: Encoding, tasks: Iterator[Task], *, batches: int) -> Iterator[Done]:
    """What became of each batch, in order; `batches`: how many there are."""
    started = time.perf_counter()
    for task in islice(tasks, TRIED):
        yield encoding.done(task)
    remaining = batches - TRIED
    seconds = (time.perf_counter() - started) / TRIED * remaining
    count = min(cores() - 1, MOST, remaining)
    setting = _pickled(encoding.setting) if seconds >= WORTH_SECONDS and count > 1 else None
    if setting is None:
        yield from map(encoding.done, tasks)
        return
    with _hired(setting, count) as workers:
        yield from _shared(encoding, tasks, workers)


def _shared(encoding: Encoding, tasks: Iterator[Task], workers: Sequence[Worker]) -> Iterator[Done]:
    """Each worker in turn: what it made is taken, the next batch given."""
    queue = deque(workers)
    for task in tasks:
        worker = queue.popleft()
        if worker.busy:
            yield worker.take(encoding)
        worker.give(task)
        queue.append(worker)
    for worker in queue:
        if worker.busy:
            yield worker.take(encoding)


@contextmanager
def _hired(setting: bytes, count: int) -> Iterator[list[Worker]]:
    with ExitStack() as stack:
        workers = [stack.enter_context(closing(Worker())) for _ in range(count)]
        for worker in workers:  # all are starting by now
            worker.tell(setting)
        yield workers


def _pickled(setting: Setting) -> bytes | None:
    """The setting for workers; None where a tokenizer of its own kind cannot be sent."""
    try:
        return bytes(ForkingPickler.dumps(setting))
    except (pickle.PicklingError, AttributeError, TypeError):
        return None
