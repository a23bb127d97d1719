"""One process for each piece of work: its memory is its own, and its end is told in one object."""

from __future__ import annotations

import json
import os
import re
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from qtune import parent
from qtune.errors import ExitCode, Fault
from qtune.runs.page import portable_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from qtune.run.display import Display

_STEP = re.compile(r"step +([\d,]+)/([\d,]+) ")
_SAVING = 120.0  # seconds that a stopped child may take to save
_PIECE = 65536
QTUNE = (sys.executable, "-m", "qtune")


@dataclass(frozen=True)
class Outcome:
    """How a process ended: its code, its object, and its faults if it failed."""

    code: int
    told: dict[str, Any]

    @property
    def fault(self) -> Fault:
        """The first fault that it told, or the bare code."""
        faults = self.told.get("error", {}).get("faults") or [{}]
        ended = f"killed by signal {-self.code}" if self.code < 0 else f"exit code {self.code}"
        told = faults[0].get
        return Fault(
            message=told("message") or ended, place=told("place") or "", hint=told("hint") or ""
        )

    @property
    def stops_all(self) -> bool:
        """Whether what stopped it concerns every other process as well."""
        return self.code in _FOR_ALL


_FOR_ALL = (
    *(ExitCode.DATA, ExitCode.OUTPUT_IN_USE, ExitCode.RESUME_REFUSED, ExitCode.TIME_LIMIT),
    *(ExitCode.HANGUP, ExitCode.INTERRUPTED, ExitCode.TERMINATED),
)


@dataclass(frozen=True)
class Work:
    """A verb of qtune for a process: its lines go to `log`; `environment` is added to ours."""

    words: tuple[str, ...]
    what: str
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def command(self) -> list[str]:
        """As it is started: its result is one object."""
        return [*QTUNE, *self.words, "--json"]


class Child:
    """A process of a group of its own: a signal reaches it through us, once, so that it saves.

    `done`, `total`: the steps of its last line that told one.
    """

    def __init__(
        self, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.done = self.total = 0
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the child
        self._log = log.open("a", encoding="utf-8")
        self._rest = b""
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=self._said,
            stderr=subprocess.PIPE,
            env={**os.environ, **(environment or {}), parent.NAME: str(os.getpid())},
            process_group=0,
        )

    def fileno(self) -> int:
        """Where its lines come from, for a selector."""
        assert self.process.stderr is not None
        return self.process.stderr.fileno()

    def read(self) -> bool:
        """Take the lines that are there; False when there are no more to come."""
        piece = os.read(self.fileno(), _PIECE)
        *lines, self._rest = (self._rest + piece).replace(b"\r", b"\n").split(b"\n")
        if not piece and self._rest:
            lines, self._rest = [self._rest], b""
        for line in lines:
            self._take(line.decode(errors="replace"))
        return bool(piece)

    def outcome(self) -> Outcome:
        """How it ended, which is waited for."""
        code = self.process.wait()
        self._said.seek(0)
        return Outcome(code, _object(self._said.read()))

    def kill(self) -> None:
        """End it and what it has started."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def close(self) -> None:
        """Give back its files."""
        assert self.process.stderr is not None
        for stream in (self.process.stderr, self._said, self._log):
            stream.close()

    def _take(self, line: str) -> None:
        if line:
            self._log.write(portable_text(f"{line}\n"))
            self._log.flush()
        step = _STEP.match(line)
        if step:
            self.done, self.total = (int(number.replace(",", "")) for number in step.groups())


class Crew:
    """Processes side by side; none outlives the block, and one that is stopped may save first."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._children: list[Child] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._stop()
        finally:
            for child in self._children:
                child.kill()
                child.process.wait()
                child.close()
            self._selector.close()

    @property
    def children(self) -> tuple[Child, ...]:
        """Those that run."""
        return tuple(self._children)

    def start(
        self, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
    ) -> Child:
        """Start one more."""
        child = Child(command, log, environment)
        self._children.append(child)
        self._selector.register(child, selectors.EVENT_READ, child)
        return child

    def next_ended(self, on_line: Callable[[Child], object]) -> tuple[Child, Outcome]:
        """Wait until one has ended; `on_line` is called with each that said something."""
        while True:
            for key, _ in self._selector.select():
                ready: Child = key.data
                if ready.read():
                    on_line(ready)
                    continue
                outcome = ready.outcome()
                self._let_go(ready)
                return ready, outcome

    def _stop(self) -> None:
        """Tell all that run to stop, and take their last lines, for as long as saving may take."""
        for child in self._children:
            child.process.terminate()
        end = time.monotonic() + _SAVING
        while self._children and time.monotonic() < end:
            for key, _ in self._selector.select(end - time.monotonic()):
                ready: Child = key.data
                if not ready.read():
                    ready.process.wait(max(0.0, end - time.monotonic()))
                    self._let_go(ready)

    def _let_go(self, child: Child) -> None:
        self._selector.unregister(child)
        self._children.remove(child)
        child.close()


def qtune(words: Sequence[str], *, what: str, log: Path, display: Display) -> Outcome:
    """Run a verb of qtune with --json; its lines go to `log`, its steps to the display."""

    def show(child: Child) -> None:
        if child.total:
            display.progress(what, child.done, child.total)

    with Crew() as crew:
        crew.start(Work(tuple(words), what, log).command, log)
        return crew.next_ended(show)[1]


def _object(said: bytes) -> dict[str, Any]:
    try:
        found = json.loads(said)
    except ValueError:  # it was killed before it could say anything
        return {}
    return found if isinstance(found, dict) else {}
